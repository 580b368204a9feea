# The disk's cache, switched off and on by the guest; in between, writing asks for no flush.
cache() { echo "%% cache $(cat /sys/block/vda/cache_type)"; }
store() { dd if=/dev/urandom of=/dev/vda bs=64k count=4 conv=fsync 2>/dev/null; }
cache
store && store || exit 1
echo "%% stored behind a cache"; sleep 5
echo "write through" >/sys/block/vda/cache_type || exit 1
cache
echo "%% before"; sleep 5
store && store || exit 1
echo "%% after"; sleep 5
echo "write back" >/sys/block/vda/cache_type || exit 1
cache
bio fill /dev/vda 1 1M && bio verify /dev/vda 1 1M
