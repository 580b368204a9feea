# about: SIGTERM: no new disks, and the end with the last guest; a second one ends the daemon at once
# time-limit: 600

# stops_at_once WHEN
stops_at_once() {
    local start=$(uptime_ms)
    check "SIGTERM $1: status 0" daemon_stop
    check "SIGTERM $1: within a second" [ $(($(uptime_ms) - start)) -le 1000 ]
}

# ends_well: true if the daemon ends by itself, with status 0.
ends_well() { wait_for 20 fails kill -0 "$DAEMON_PID" && wait "$DAEMON_PID"; }

# further NAME ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said "$1" "%% round")" -gt "$2" ]; }

daemon_start run
stops_at_once "while nobody is served"

daemon_start run
GUEST_CMDLINE=xvt.script=steady
guest_config steady 160 1 slim "$(virtio_disk "$(image steady 16M)" xvda)"
check "xl create" guest_create steady || give_up "a guest is created"
expect steady "%% round"
kill -TERM "$DAEMON_PID"
check "the daemon says what it waits for" daemon_says "told to stop: new devices are refused"
rounds=$(guest_said steady "%% round")
check "the guest's disk goes on" wait_for 30 further steady $((rounds + 3))
check "the daemon waits for the guest" kill -0 "$DAEMON_PID"
guest_config late 128 1 slim "$(virtio_disk "$(image late 16M)" xvda)"
guest_refused late "was told to stop and refuses new devices"
rounds=$(guest_said steady "%% round")
check "the guest's disk goes on, still" wait_for 30 further steady $((rounds + 3))
check "none of its rounds failed" [ "$(guest_said steady "%% script steady status")" = 0 ]
check "xl destroy" xl destroy steady
check "the daemon ends with its last guest, status 0" ends_well

daemon_start run
GUEST_CMDLINE=xvt.script=idle
guest_config resting 160 1 slim "$(virtio_disk "$(image resting 16M)" xvda)"
check "xl create" guest_create resting || give_up "a guest is created"
domid=$(xl domid resting)
expect resting "%% idle"
kill -TERM "$DAEMON_PID"
sleep 1
check "the daemon waits for an idle guest, too" kill -0 "$DAEMON_PID"
stops_at_once "again, under a guest"
check "the log says which guest loses what" daemon_says "virtio_disk/$domid/51712 (/dev/shm/resting.img)"
check "and that it does" daemon_says "it loses these devices"

daemon_start run --stop-timeout 3
check "the guest without a backend can be destroyed" xl destroy resting
GUEST_CMDLINE=xvt.script=idle
guest_config brief 160 1 slim "$(virtio_disk "$(image brief 16M)" xvda)"
check "xl create" guest_create brief || give_up "a guest is created"
expect brief "%% idle"
kill -TERM "$DAEMON_PID"
sleep 1
check "the daemon waits for the guest" kill -0 "$DAEMON_PID"
check "but not longer than --stop-timeout" ends_well
check "the log says so" daemon_says "the time that --stop-timeout gives the guests is over"
check "xl destroy" xl destroy brief

daemon_start run
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
