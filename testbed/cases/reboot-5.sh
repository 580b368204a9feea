# about: a guest reboots five times, each time the daemon lets go of all it held
# transport: both
# time-limit: 600

daemon_start run
idle=$(daemon_holds)
note "idle: $idle"
GUEST_ON_REBOOT=restart GUEST_CMDLINE="xvt.script=reboot BOOTS=6"
guest_config again 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create again || give_up "a guest is created"
for boot in 1 2 3 4 5; do
    expect again "%% boot $boot" 120
    note "in boot $boot: $(daemon_holds)"
    # xl waits two seconds between the old guest's end and the new one's beginning.
    check "the guest of boot $boot is gone" wait_for 60 guest_gone again
    check "nothing of boot $boot is left" daemon_holds_only "$idle"
done
expect again "%% boot 6" 120
expect again "%% script reboot status 0"
check "the guest is gone" guest_wait_gone again
check "nothing is left" daemon_holds_only "$idle"
check "six boots were served" [ "$(grep -c "disk totals.* host_errors=0 " "$DAEMON_LOG")" = 6 ]
check "the daemon stops" daemon_stop
