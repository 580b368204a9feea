# Storage given back: of the whole disk, and of a file in a file system, by itself and by fstrim.
# After each step dom0 looks at the image.
echo "%% discard $(cat /sys/block/vda/queue/discard_max_bytes) zeroes $(cat /sys/block/vda/queue/write_zeroes_max_bytes)"
bio fill /dev/vda 1 16M || exit 1
echo "%% filled"; sleep 5
blkdiscard /dev/vda || exit 1
echo "%% discarded"; sleep 5
mkfs.ext4 -q -F /dev/vda && mount -t ext4 -o discard /dev/vda /mnt || exit 1
dd if=/dev/urandom of=/mnt/file bs=64k count=128 conv=fsync 2>/dev/null || exit 1
echo "%% stored"; sleep 5
# ext4 discards in the background, what it has committed to have freed.
rm /mnt/file && sync && sleep 5 && umount /mnt || exit 1
echo "%% removed"; sleep 5
mount -t ext4 /dev/vda /mnt && dd if=/dev/urandom of=/mnt/file bs=64k count=128 conv=fsync 2>/dev/null || exit 1
rm /mnt/file && sync && fstrim /mnt && umount /mnt || exit 1
echo "%% trimmed"; sleep 5
e2fsck -f -n /dev/vda >/dev/null
