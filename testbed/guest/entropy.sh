# The kernel's source of entropy is the virtio device, and what it gives is noise, never the same
# again. Then the driver lets go of it and takes it again. Of the environment: KIB, read each time.
kib=${KIB:-32}
hwrng=/sys/class/misc/hw_random/rng_current

# noise FILE: as many bytes as wanted, each of the 256 among them, nothing for gzip to find.
noise() {
    local bytes=$((kib * 1024)) values size
    head -c "$bytes" /dev/hwrng >"$1" || return 1
    values=$(hexdump -v -e '1/1 "%u\n"' "$1" | sort -u | wc -l)
    size=$(gzip -c "$1" | wc -c)
    echo "%% $(wc -c <"$1") bytes, $values values, $size bytes by gzip"
    [ "$(wc -c <"$1")" = "$bytes" ] && [ "$values" = 256 ] && [ "$size" -ge "$bytes" ]
}

is_virtio() { grep -q '^virtio_rng' "$hwrng"; }

echo "%% hwrng $(cat "$hwrng")"
is_virtio && noise /tmp/1 && noise /tmp/2 || exit 1
! cmp -s /tmp/1 /tmp/2 || exit 1

device=$(basename /sys/bus/virtio/drivers/virtio_rng/virtio*)
echo "$device" >/sys/bus/virtio/drivers/virtio_rng/unbind || exit 1
! is_virtio || exit 1
echo "$device" >/sys/bus/virtio/drivers/virtio_rng/bind || exit 1
is_virtio && noise /tmp/3 || exit 1
echo "%% the driver let go and came back"
complaints=$(dmesg | grep -i -c -e 'grant.*still in use' -e broken)
echo "%% complaints $complaints"
[ "$complaints" = 0 ]
