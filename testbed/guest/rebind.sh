# The driver lets go of the disk and takes it again, twenty times, with I/O in between.
for round in $(seq 20); do
    bio fill /dev/vda $round 256k || exit 1
    echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind || exit 1
    [ ! -e /dev/vda ] || exit 1
    echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind || exit 1
    bio verify /dev/vda $round 256k || exit 1
done
echo "%% bound $round times"
