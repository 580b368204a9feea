# Verified I/O on /dev/vda in all the ways there are: raw, many requests in flight, a file system.
# Of the environment: OPS, the requests of each of hammer's threads; THREADS; DEPTH.
set -o pipefail
bio fill /dev/vda 1 4M && bio verify /dev/vda 1 4M || exit 1
bio hammer /dev/vda --threads "${THREADS:-1}" --depth "${DEPTH:-4}" --ops "${OPS:-100}" --len 8M | sed 's/^/%% /' || exit 1
mkfs.ext4 -q -F /dev/vda && mount -t ext4 /dev/vda /mnt || exit 1
for i in 1 2 3 4; do
    dd if=/dev/urandom of=/mnt/file$i bs=64k count=$((i * 4)) conv=fsync 2>/dev/null || exit 1
done
(cd /mnt && sha256sum file* >/tmp/sums && cp /tmp/sums sums) || exit 1
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt && (cd /mnt && sha256sum -c sums >/dev/null) || exit 1
umount /mnt
echo "%% verified $(wc -l </tmp/sums) files"
