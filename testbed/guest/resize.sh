# A disk of 16 MiB that becomes one of 32 and then one of 24.
follow() {
    local left=100
    until [ "$(cat /sys/block/vda/size)" = "$1" ]; do
        left=$((left - 1)); [ "$left" -gt 0 ] || exit 1
        sleep 0.2
    done
    echo "%% sectors $1"
}
follow 32768
bio fill /dev/vda 1 1M --offset 15M || exit 1
if bio fill /dev/vda 2 1M --offset 31M; then exit 1; fi
echo "%% ready to grow"
follow 65536
bio fill /dev/vda 2 1M --offset 31M && bio verify /dev/vda 2 1M --offset 31M || exit 1
bio verify /dev/vda 1 1M --offset 15M || exit 1
echo "%% ready to shrink"
follow 49152
bio verify /dev/vda 1 1M --offset 15M || exit 1
if bio verify /dev/vda 2 1M --offset 31M; then exit 1; fi
