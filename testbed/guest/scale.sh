# Loads as dom0 asks for them, a line each: MAPPING DISKS DEPTH COUNT, until `end`. `bio load` then waits for one more
# line, by which all guests begin.
#
# disks MAPPING COUNT: the first disks that are reached by `foreign` mapping or by `grant`: the feature
# VIRTIO_F_ACCESS_PLATFORM, bit 33, tells.
disks() {
    local disk platform=0 left=$2
    [ "$1" = foreign ] || platform=1
    for disk in /sys/block/vd*; do
        [ "$left" -gt 0 ] && [ "$(cut -c 34 "$disk/device/features")" = $platform ] || continue
        echo "/dev/${disk##*/}"
        left=$((left - 1))
    done
}
interrupts() { awk '/virtio/ { sum += $2 } END { print sum + 0 }' /proc/interrupts; }
stty -echo
echo "%% scale up, $(disks foreign 99 | wc -l) foreign, $(disks grant 99 | wc -l) granting"
while read -r mapping disks depth count && [ "$mapping" != end ]; do
    before=$(interrupts)
    result=$(bio load 4096 "$count" --depth "$depth" $(disks "$mapping" "$disks")) || exit 1
    echo "%% load ${result#bio load } interrupts=$(($(interrupts) - before))"
done
