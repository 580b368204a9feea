# As many disks as there are, each read once; then they rest, until somebody ends the guest.
count=0
for disk in /sys/block/vd*; do
    [ "$(ls "$disk/mq" | wc -l)" = "$(nproc)" ] || echo "%% ${disk##*/} has other queues than CPUs"
    # From each CPU, so that each of its queues is used.
    for cpu in $(seq 0 $(($(nproc) - 1))); do
        taskset $(printf %x $((1 << cpu))) dd if="/dev/${disk##*/}" of=/dev/null bs=64k count=1 skip="$cpu" iflag=direct 2>/dev/null || exit 1
    done
    count=$((count + 1))
done
echo "%% read $count disks, $(sed -n 's/MemAvailable: *//p' /proc/meminfo) of memory left"
sleep 100000
