# about: an xenstored that doesn't answer is named within seconds; SIGTERM is heard; what is served goes on

# within SECONDS WHAT COMMAND…: a check that it ends in that time, whatever its status; its words are in /tmp/words.
within() {
    local limit=$1 what=$2 start=$(uptime_ms); shift 2
    "$@" >/tmp/words 2>&1
    note "$what: status $?, $(($(uptime_ms) - start)) ms: $(tail -n 1 /tmp/words)"
    check "$what: within $limit s" [ $(($(uptime_ms) - start)) -le $((limit * 1000)) ]
}

# further ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said guest "%% round")" -gt "$1" ]; }

xenstored=$(pidof xenstored) || give_up "there is an xenstored"
kill -STOP "$xenstored"
within 8 "check" xen-virtio-blk check
check "check names xenstored" grep -q "MISSING.*xenstore" /tmp/words
check "check says that it doesn't answer" grep -qF "xenstored does not answer within 3 s" /tmp/words
within 8 "run" xen-virtio-blk run
check "run says that it doesn't answer" grep -qF "xenstored does not answer within 3 s" /tmp/words
daemon_start run
start=$(uptime_ms)
kill -TERM "$DAEMON_PID"
check "SIGTERM while it waits: status 0" wait "$DAEMON_PID"
check "SIGTERM while it waits: within a second" [ $(($(uptime_ms) - start)) -le 1000 ]
kill -CONT "$xenstored"

daemon_start run
GUEST_CMDLINE=xvt.script=steady
guest_config guest 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create guest || give_up "a guest is created"
expect guest "%% round"
kill -STOP "$xenstored"
rounds=$(guest_said guest "%% round")
check "the guest's disk goes on" wait_for 30 further $((rounds + 5))
kill -CONT "$xenstored"
guest_config next 128 1 slim "$(virtio_disk "$(image next 16M)" xvda)"
check "a guest that comes after is served" guest_create next
expect next "%% round"
check "xl destroy" xl destroy next
check "xl destroy" xl destroy guest
check "the daemon stops" daemon_stop
