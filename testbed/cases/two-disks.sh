# about: one guest with two disks of different size, both at work at once
# transport: both

daemon_start run
first=$(image first 64M) second=$(image second 32M)
GUEST_CMDLINE=xvt.script=two-disks
guest_config two 192 1 slim "$(virtio_disk "$first" xvda)" "$(virtio_disk "$second" xvdb)"
check "xl create" guest_create two || give_up "a guest is created"
expect two "%% sectors 131072 65536"
expect two "%% interrupts 2"
expect two "%% script two-disks status 0"
check "the guest is gone" guest_wait_gone two
check "the first image holds its own pattern" bio verify "$first" 11 4M
check "the second image holds its own pattern" bio verify "$second" 22 4M
check "both disks have served" [ "$(grep -c "disk totals.* host_errors=0 " "$DAEMON_LOG")" = 2 ]
check "the daemon stops" daemon_stop
