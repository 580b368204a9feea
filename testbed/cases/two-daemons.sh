# about: a second daemon ends at once and names the first, whose guests don't notice

daemon_start run
xen-virtio-blk run >/var/log/second.log 2>&1 && fail "the second daemon ends with an error"
note "$(cat /var/log/second.log)"
check "it names the first one" grep -qF "another xen-virtio-blk (process $DAEMON_PID)" /var/log/second.log
check "the first one lives" kill -0 "$DAEMON_PID"
GUEST_CMDLINE=xvt.script=io
guest_config guest 160 1 slim "$(virtio_disk "$(image disk 64M)" xvda)"
check "xl create" guest_create guest || give_up "a guest is created"
check "a second daemon under a guest ends, too" fails xen-virtio-blk run
expect guest "%% script io status 0" 120
check "the guest is gone" guest_wait_gone guest
kill -KILL "$DAEMON_PID"
wait "$DAEMON_PID" 2>/dev/null
daemon_start run
check "what a killed daemon leaves is no obstacle" kill -0 "$DAEMON_PID"
check "the daemon stops" daemon_stop
