# A read-only disk with an ext4 on it: it can be read, and nothing else.
set -o pipefail
echo "%% ro $(cat /sys/block/vda/ro)"
bio refuse /dev/vda | sed 's/^/%% /' || exit 1
if dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync 2>/dev/null; then exit 1; fi
if mount -t ext4 -o rw /dev/vda /mnt 2>/dev/null && touch /mnt/x 2>/dev/null; then exit 1; fi
umount /mnt 2>/dev/null
mount -t ext4 -o ro /dev/vda /mnt || exit 1
(cd /mnt && sha256sum -c sums) && umount /mnt
