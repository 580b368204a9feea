# about: SIGTERM, SIGINT and SIGKILL end the daemon at once; guests' disks go on, and the next daemon takes them over
# time-limit: 600

# ends_at_once SIGNAL WHEN
ends_at_once() {
    local start=$(uptime_ms)
    kill "-$1" "$DAEMON_PID"
    check "SIG$1 $2: it ends" wait_for 20 fails kill -0 "$DAEMON_PID"
    wait "$DAEMON_PID"
    check "SIG$1 $2: status 0" [ $? = 0 ]
    check "SIG$1 $2: within a second" [ $(($(uptime_ms) - start)) -le 1000 ]
}

# serving NAME: the process that serves the guest.
serving() {
    local dir domid=$(xl domid "$1")
    for dir in /proc/[0-9]*; do
        case "$(tr '\0' ' ' 2>/dev/null <"$dir/cmdline")" in
        *" --guest-process $domid-"*) echo "${dir#/proc/}" ;;
        esac
    done
}

# further NAME ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said "$1" "%% round")" -gt "$2" ]; }

# goes_on WHEN: a check that the guest `steady` does verified I/O, by the process that has served it from its start.
goes_on() {
    local rounds=$(guest_said steady "%% round")
    check "$1: the guest's disk goes on" wait_for 30 further steady $((rounds + 3))
    check "$1: by the same process" [ "$(serving steady)" = "$served" ]
}

# takes_over WHEN: starts a daemon, which must take over the guest.
takes_over() {
    local lines=$(grep -cF "taken over id=" "$DAEMON_LOG")
    daemon_start run
    check "$1: the next daemon takes the disk over" wait_for 20 taken_over "$lines"
}
taken_over() { [ "$(grep -cF "taken over id=" "$DAEMON_LOG")" -gt "$1" ]; }

daemon_start run
ends_at_once TERM "while nobody is served"
daemon_start run
ends_at_once INT "while nobody is served"

daemon_start run
idle=$(daemon_holds)
disk=$(image steady 16M)
GUEST_CMDLINE=xvt.script=steady
guest_config steady 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create steady || give_up "a guest is created"
expect steady "%% round"
served=$(serving steady)
check "the guest has a process of its own" [ -n "$served" ]

ends_at_once TERM "under a guest"
check "the log says what becomes of the guest" daemon_says "the processes of guests serve on"
goes_on "without a daemon"
takes_over "after SIGTERM"
goes_on "taken over"

kill -KILL "$DAEMON_PID"
wait "$DAEMON_PID" 2>/dev/null
goes_on "without a daemon that was killed"
takes_over "after SIGKILL"
goes_on "taken over again"

truncate -s 24M "$disk"
kill -HUP "$DAEMON_PID"
check "a resize reaches the guest" daemon_says "the disk has grown"
check "its figures are told" [ "$(daemon_now "virtio_disk/$(xl domid steady)/51712" requests)" -gt 0 ]
killall -HUP xen-virtio-blk
killall -TERM xen-virtio-blk
check "SIGTERM to all processes ends the daemon" wait_for 20 fails kill -0 "$DAEMON_PID"
goes_on "without a daemon after SIGTERM to all processes"
takes_over "after that"

# What is attached and let go of under a daemon that has taken over.
GUEST_CMDLINE=xvt.script=io
guest_config next 160 1 slim "$(virtio_disk "$(image next 64M)" xvda)"
check "xl create, the next guest" guest_create next || give_up "a guest is created"
expect next "%% script io status 0" 120
check "the next guest is gone" guest_wait_gone next
check "none of the first one's rounds failed" [ "$(guest_said steady "%% script steady status")" = 0 ]
start=$(uptime_ms)
check "xl destroy" xl destroy steady
check "it need not wait for the daemon" [ $(($(uptime_ms) - start)) -le 5000 ]
check "the process ends with its guest" wait_for 20 fails [ -d "/proc/$served" ]
check "nothing is left" daemon_holds_only "$idle"

GUEST_CMDLINE=xvt.script=steady
guest_config alone 160 1 slim "$(virtio_disk "$(image alone 16M)" xvda)"
check "xl create, another one" guest_create alone || give_up "a guest is created"
expect alone "%% round"
served=$(serving alone)
ends_at_once TERM "under that one"
check "xl destroy without a daemon" xl destroy alone
check "the process ends with its guest" wait_for 20 fails [ -d "/proc/$served" ]
daemon_start run
check "the next daemon has nothing to take over" daemon_holds_only "$idle"
check "nor to find" [ -z "$(ls -A /run/xen-virtio-blk/guests)" ]
ends_at_once TERM "at the end"
