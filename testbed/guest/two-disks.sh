# Two disks at once: each takes its own pattern and gives back its own.
echo "%% sectors $(cat /sys/block/vda/size) $(cat /sys/block/vdb/size)"
bio fill /dev/vda 11 4M & a=$!
bio fill /dev/vdb 22 4M & b=$!
wait $a && wait $b || exit 1
bio verify /dev/vda 11 4M & a=$!
bio verify /dev/vdb 22 4M & b=$!
wait $a && wait $b || exit 1
# A virtio-pci device has one for configuration changes, too.
echo "%% interrupts $(grep virtio /proc/interrupts | grep -vc config)"
