# Of a guest whose firmware loaded it from /dev/vda: what was loaded is there, and the disk takes files.
mount -t ext4 /dev/vda /mnt || exit 1
(cd /mnt/boot && sha256sum Image initrd >/tmp/sums) || exit 1
for i in 1 2 3 4; do
    dd if=/dev/urandom of=/mnt/file$i bs=64k count=$i conv=fsync 2>/dev/null || exit 1
done
(cd /mnt && sha256sum file* >/tmp/files) && umount /mnt || exit 1
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt || exit 1
(cd /mnt/boot && sha256sum -c /tmp/sums >/dev/null) && echo "%% kernel and initramfs are whole" || exit 1
(cd /mnt && sha256sum -c /tmp/files >/dev/null) && echo "%% verified $(wc -l </tmp/files) files" || exit 1
umount /mnt
