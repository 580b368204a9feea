# A write near the disk's beginning, and one at 20 MiB.
dd if=/dev/urandom of=/dev/vda bs=64k count=1 conv=fsync,notrunc 2>/dev/null
echo "%% near write status $?"
dd if=/dev/urandom of=/dev/vda bs=64k count=1 seek=320 conv=fsync,notrunc 2>/dev/null
echo "%% far write status $?"
