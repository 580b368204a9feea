# about: SIGTERM ends the daemon at once, with and without a guest; its successor serves new guests

# stops_at_once WHEN
stops_at_once() {
    local start=$(uptime_ms)
    check "SIGTERM $1: status 0" daemon_stop
    check "SIGTERM $1: within a second" [ $(($(uptime_ms) - start)) -le 1000 ]
}

daemon_start run
stops_at_once "while nobody is served"

daemon_start run
GUEST_CMDLINE=xvt.script=idle
guest_config resting 160 1 slim "$(virtio_disk "$(image resting 16M)" xvda)"
check "xl create" guest_create resting || give_up "a guest is created"
expect resting "%% idle"
stops_at_once "while a guest has an idle disk"

daemon_start run
check "the guest without a backend can be destroyed" xl destroy resting
idle=$(daemon_holds)
GUEST_CMDLINE=xvt.script=io
guest_config next 160 1 slim "$(virtio_disk "$(image next 64M)" xvda)"
check "xl create, the next guest" guest_create next || give_up "a guest is created"
expect next "%% script io status 0" 120
check "the guest is gone" guest_wait_gone next
check "nothing is left" daemon_holds_only "$idle"
kill -USR1 "$DAEMON_PID"
check "SIGINT ends it, too" sh -c "kill -INT $DAEMON_PID"
check "with status 0" wait "$DAEMON_PID"
