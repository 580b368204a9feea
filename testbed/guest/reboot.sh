# Boots BOOTS times: each boot verifies what the one before has written, writes its own, reboots.
# Which boot it is stands in a sector of the disk itself.
count=$(dd if=/dev/vda bs=512 skip=16384 count=1 2>/dev/null | tr -d '\0')
count=${count:-0}
[ "$count" = 0 ] || bio verify /dev/vda "$count" 1M || exit 1
count=$((count + 1))
echo "%% boot $count"
bio fill /dev/vda $count 1M || exit 1
[ "$count" -lt "$BOOTS" ] || exit 0
echo $count | dd of=/dev/vda bs=512 seek=16384 conv=sync,fsync 2>/dev/null || exit 1
reboot -f
