# about: a guest's process that does as it likes reaches nothing but its guest; and how the processes of disks are confined
# xen: 4.19
# binary: from-inside
# time-limit: 900

LOG=/var/log/from-inside.log

# inside_start [ARG…]: starts the backend whose guests' processes try things.
inside_start() {
    from-inside "$@" >>$LOG 2>&1 &
    INSIDE=$!
    sleep 0.5
}
inside_stop() { kill -TERM "$INSIDE" && wait "$INSIDE"; }

# attempt ACTION…: has the process of a new guest try that; prints `done`, `refused: WHY`, or nothing. The guest's domid
# is in /tmp/last.
attempt() {
    local lines=$(wc -l <$LOG)
    echo "$*" >/run/attempt
    GUEST_CONFIG="virtio = [ \"backend=0,type=virtio,device4,transport=mmio,grant_usage=$grants\" ]"
    guest_config inside 64 1 slim
    xl create -p /tmp/inside.cfg >/tmp/inside.xl 2>&1 || cat /tmp/inside.xl >&3
    xl domid inside >/tmp/last
    wait_for 10 became "$lines"
    outcome "$lines"
    xl destroy inside >&2
}
outcome() {
    tail -n +$(($1 + 1)) $LOG | sed -n -e 's/.* attempt .*: done.*/done/p' -e 's/.* attempt .*: refused: /refused: /p' \
        -e 's/.*signal 31 (SIGSYS).*/refused: SIGSYS/p' | head -n 1
}
became() { [ -n "$(outcome "$1")" ]; }

# works ACTION…, refused ACTION…: a check of it.
works() {
    local result=$(attempt "$@")
    check "$mode: $*: ${result:-nothing}" [ "$result" = "done" ]
}
refused() {
    local result=$(attempt "$@")
    check "$mode: $*: ${result:-nothing}" [ "${result%%:*}" = refused ]
}

stream inside $LOG
daemon_start run
GUEST_CMDLINE=xvt.script=steady
image=$(image neighbour 16M)
guest_config neighbour 128 1 slim "$(virtio_disk "$image" xvda)"
guest_config granting 128 1 slim "$(virtio_disk "$(image granting 16M)" xvda rw grant_usage=1)"
check "xl create neighbour" guest_create neighbour || give_up "a guest is created"
check "xl create granting" guest_create granting || give_up "a guest is created"
expect neighbour "%% round"
expect granting "%% round"
domid=$(xl domid neighbour) pid=$(guest_process neighbour)
ifconfig lo up
GUEST_CMDLINE=

# What Xen's devices refuse by themselves, as they are restricted to the guest.
grants=0 mode="not confined"
inside_start --no-sandbox
for action in hypercall "map-foreign $domid" "map-resource $domid" "device-model $domid" bind-virq "bind-unbound $domid" \
    "map-grant $domid"; do
    works $action fresh
    refused $action
done
refused restrict-privcmd "$domid"
refused restrict-evtchn "$domid"
works threads 200
works open "$image"
works ptrace "$pid"
works kill "$pid"
grants=1 mode="not confined, with grants"
works map-foreign $(($(cat /tmp/last) + 1))
check "the backend without a sandbox stops" inside_stop

grants=0 mode=confined
inside_start
for action in hypercall "map-foreign $domid" "map-resource $domid" "device-model $domid" bind-virq "bind-unbound $domid" \
    "map-grant $domid" "restrict-privcmd $domid" "restrict-evtchn $domid"; do
    refused $action
done
# Even with devices that are not restricted.
for action in hypercall bind-virq "bind-unbound $domid" "map-grant $domid"; do
    refused $action fresh
done
for device in privcmd evtchn gntdev xenbus; do
    refused open /dev/xen/$device
done
refused unix /run/xenstored/socket
refused open "$image"
refused open /etc/passwd
refused create /dev/shm/made
refused walk-up etc/passwd
refused open "/proc/$pid/mem"
refused ptrace "$pid"
refused kill "$pid"
refused kill "$DAEMON_PID"
refused kill "$INSIDE"
refused exec /bin/true
refused execute-memory
refused execute-file /bin/true
refused become-root
refused unshare
refused mount
refused udp 127.0.0.1:9
refused ring-setup
refused ring-open /testbed/lib.sh
refused fork
works threads 30
refused threads 200
grants=1 mode="confined, with grants"
refused map-foreign $(($(cat /tmp/last) + 1))
refused map-foreign "$domid"
refused hypercall
check "the backend that tries things stops" inside_stop

# audit NAME IMAGE [DEVICE]: how the process of a guest's disks is confined, seen from outside; it has no file but these.
audit() {
    local pid=$(guest_process "$1") id=$(($(sed -n "s/^xen-virtio-guest:[^:]*:\([0-9]*\):.*/\1/p" /etc/passwd) + $(xl domid "$1"))) status task kind fd
    for task in /proc/$pid/task/*; do
        status=$(tr '\t' ' ' <"$task/status" | sed 's/ *$//')
        for line in "Uid: $id $id $id $id" "Gid: $id $id $id $id" "Groups:" "NoNewPrivs: 1" "Seccomp: 2" \
            "CapInh: 0000000000000000" "CapPrm: 0000000000000000" "CapEff: 0000000000000000" \
            "CapBnd: 0000000000000000" "CapAmb: 0000000000000000"; do
            echo "$status" | grep -qx "$line" || fail "$1: the thread $(cat "$task/comm") has: $(echo "$status" | grep "${line%% *}")"
        done
    done
    check "$1: each of its threads is of another user, without groups, privileges or unfiltered calls" test -d "$task"
    for kind in mnt net ipc uts; do
        check "$1: its namespace $kind is its own" \
            [ "$(readlink "/proc/$pid/ns/$kind")" != "$(readlink /proc/self/ns/$kind)" ]
    done
    check "$1: its root directory is empty" [ -z "$(ls -A "/proc/$pid/root/")" ]
    check "$1: no core of it is written" grep -q "^Max core file size *0 *0 " "/proc/$pid/limits"
    check "$1: nobody may look into it but root" [ "$(stat -c %u:%g "/proc/$pid/maps")" = 0:0 ]
    for fd in /proc/$pid/fd/*; do
        kind=$(readlink "$fd")
        case $kind in
        /dev/null | "$DAEMON_LOG" | socket:* | "anon_inode:[eventfd]" | "anon_inode:[timerfd]" | \
            "anon_inode:[eventpoll]" | "anon_inode:[io_uring]" | "pipe:"*) ;;
        /dev/xen/privcmd | /dev/xen/evtchn | "$2" | "${3:-$2}") ;;
        *) fail "$1: it has the descriptor ${fd##*/} of $kind" ;;
        esac
    done
    note "$1: descriptors: $(ls -l "/proc/$pid/fd" | sed 's/.* -> //; s/:\[[0-9]*\]//' | sort | uniq -c | tr -s ' \n' ' ')"
    check "$1: it has descriptors" [ -n "$kind" ]
}
audit neighbour "$IMAGES/neighbour.img"
audit granting "$IMAGES/granting.img" /dev/xen/gntdev
check "neighbour found nothing wrong" [ "$(guest_said neighbour "%% script steady status")" = 0 ]
for guest in neighbour granting; do
    check "xl destroy $guest" xl destroy $guest
done
check "the daemon stops" daemon_stop
