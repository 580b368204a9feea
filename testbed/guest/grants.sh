# All of io.sh by grants; then the driver lets go of the disk and takes it again, which frees the
# rings: a page that the backend had kept would be reported by the kernel.
echo "%% iommus $(hexdump -v -e '1/1 "%02x"' /proc/device-tree/virtio@2000000/iommus)"
echo "%% compatible $(tr '\0' ' ' </proc/device-tree/xen_iommu/compatible)"
. /scripts/io.sh
bio fill /dev/vda 2 1M || exit 1
echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/unbind || exit 1
[ ! -e /dev/vda ] || exit 1
echo virtio0 >/sys/bus/virtio/drivers/virtio_blk/bind || exit 1
bio verify /dev/vda 2 1M || exit 1
echo "%% the driver let go and came back"
complaints=$(dmesg | grep -i -c -e 'grant.*still in use' -e broken)
echo "%% complaints $complaints"
[ "$complaints" = 0 ]
