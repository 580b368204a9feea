# All of the memory is touched by I/O, so that the daemon maps it; then verified I/O goes on at an easy pace,
# until somebody ends the guest.
bio fill /dev/vda 7 4M --offset 16M >/dev/null || exit 1
dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null || exit 1
echo 3 >/proc/sys/vm/drop_caches
echo "%% touched, $(sed -n 's/^MemFree: *//p' /proc/meminfo) free"
while bio hammer /dev/vda --depth 8 --ops 40 --len 8M --bytes 128k >/dev/null &&
    bio verify /dev/vda 7 4M --offset 16M >/dev/null; do
    echo "%% round, $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
    sleep 0.2
done
