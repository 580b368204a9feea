# about: a stock Debian guest lives on our disks: writes, reboots, verifies
# guest-kernel: stock
# disk: root rootfs
# disk: data 64M
# host-fsck: root
# host-fsck: data
# time-limit: 300

daemon_start run
GUEST_ON_REBOOT=restart GUEST_CMDLINE=xvt.mode=demo
guest_config guest 256 1 stock \
    "$(virtio_disk "$(host_disk root)" xvda)" "$(virtio_disk "$(host_disk data)" xvdb)"
note "xen $(xl info | sed -n 's/^xen_version *: *//p')"
note "dom0 $(uname -r)"
check "the guest is created" guest_create guest || give_up "a guest is created"
expect guest "%% wrote" 120
expect guest "%% rebooting" 60
expect guest "%% verified 8 files on / and 4 on /data-disk after the reboot" 240
check "the guest is gone" guest_wait_gone guest
check "the daemon stops" daemon_stop
