# One disk, whatever driver serves it: write, read back, a file system.
disk=/dev/vda
[ -b "$disk" ] || disk=/dev/xvda
bio fill "$disk" 1 4M && bio verify "$disk" 1 4M || exit 1
bio bench "$disk" w 4096 64 && bio bench "$disk" r 4096 64 --depth 8 || exit 1
mkfs.ext4 -q -F "$disk" && mount -t ext4 "$disk" /mnt || exit 1
dd if=/dev/urandom of=/mnt/file bs=64k count=16 2>/dev/null
sum=$(sha256sum </mnt/file)
umount /mnt && mount -t ext4 "$disk" /mnt || exit 1
[ "$sum" = "$(sha256sum </mnt/file)" ] && umount /mnt
