# about: Debian's own kernel, its root on /dev/vda by foreign mapping: writes, reboots, verifies
# transport: both
# guest-kernel: stock
# disk: root rootfs
# host-fsck: root
# time-limit: 400

daemon_start run
disk=$(host_disk root)
GUEST_ON_REBOOT=restart GUEST_CMDLINE=xvt.mode=files
guest_config root 256 1 stock "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create root || give_up "a guest is created"
expect root "%% root is /dev/vda" 120
expect root "%% wrote 8 files" 120
expect root "%% verified 8 files after the reboot" 240
expect root "%% mode files status 0"
check "the guest is gone" guest_wait_gone root
check "two boots, each with its driver ready" [ "$(grep -c "driver is ready" "$DAEMON_LOG")" = 2 ]
check "no request failed" [ "$(grep -c "disk totals.* host_errors=0 " "$DAEMON_LOG")" = 2 ]
check "the daemon stops" daemon_stop
check "dom0 finds the file system clean" e2fsck -f -n "$disk"
