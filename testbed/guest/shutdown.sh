# Verified I/O, until the toolstack has the guest shut down: the kernel then runs /sbin/poweroff, which busybox's would
# leave to an init that knows it.
rm -f /sbin/poweroff
printf '#!/bin/sh\nsync\nexec /bin/busybox poweroff -f\n' >/sbin/poweroff
chmod 755 /sbin/poweroff
while bio hammer /dev/vda --depth 8 --ops 20 --len 512k; do
    echo "%% round"
    sleep 0.2
done
