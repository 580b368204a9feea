# about: a guest suspends and resumes its devices: each time its driver resets the disk and takes it again
# transport: both

daemon_start run
disk=$(image disk 64M)
GUEST_CMDLINE=xvt.script=suspend
guest_config sleeper 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create sleeper || give_up "a guest is created"
for round in 1 2 3; do
    expect sleeper "%% round $round"
done
expect sleeper "%% complaints 0"
expect sleeper "%% script suspend status 0"
check "the guest is gone" guest_wait_gone sleeper
check "the driver was ready four times" [ "$(grep -c "driver is ready" "$DAEMON_LOG")" = 4 ]
check "the image holds what was written last" bio verify "$disk" 4 1M
check "the daemon stops" daemon_stop
