# about: the process of one guest is killed under load: its disks go, as is said with the cause, and nobody else notices
# transport: both
# xen: 4.19
# time-limit: 600

# As systemd has it by `Delegate=yes`.
cgroup=/sys/fs/cgroup/xen-virtio-blk
echo "+memory +cpu +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup && setfattr -n user.delegate -v 1 $cgroup || give_up "there is a delegated cgroup"

state_is() { [ "$(xenstore-read "$2/state")" = "$1" ]; }
rounds() { guest_said other "%% round"; }
further() { [ "$(rounds)" -gt "$1" ]; }
lives_on() { [ "$(guest_said doomed "%% alive")" -gt "$1" ]; }
# nobody_has IMAGE: true if no process has it open.
nobody_has() { ! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -qF -- "$1"; }

# die WAY PID CGROUP: has the process die.
die() {
    case $1 in
    # The runtime's handler takes the first one, as it was no access to memory, and removes itself.
    SIGSEGV) kill -SEGV "$2"; sleep 0.1; kill -SEGV "$2" ;;
    SIGKILL) kill -KILL "$2" ;;
    # It has more than that.
    memory) echo 1M >"$3/memory.max" ;;
    esac
}

# killed WAY SHARING WORDS: kills the process of a guest under load, and looks at what comes of it.
killed() {
    local way="$1, $2" words=$3 domid pid path image second before alive longest dir
    image=$(image doomed 16M) second=$(image second 16M)
    GUEST_CMDLINE=xvt.script=doomed
    case $2 in foreign) grants=0 ;; *) grants=1 ;; esac
    guest_config doomed 160 1 slim "$(virtio_disk "$image" xvda rw grant_usage=$grants)" \
        "$(virtio_disk "$second" xvdb rw grant_usage=$grants)"
    check "$way: xl create" guest_create doomed || give_up "a guest is created"
    expect doomed "%% busy"
    domid=$(xl domid doomed) pid=$(guest_process doomed "$2")
    path=/local/domain/0/backend/virtio_disk/$domid
    dir=$cgroup/guest-$domid-$2
    check "$way: the process $pid is in its cgroup" grep -qx "$pid" "$dir/cgroup.procs"
    # 64 of its own; and for 16 disks the thread of a queue, and the four that the kernel may start for its io_uring.
    check "$way: it may have as many tasks as it needs: $(cat "$dir/pids.max")" [ "$(cat "$dir/pids.max")" = $((64 + 16 * 5)) ]
    before=$(rounds) lines=$(wc -l <"$GUEST_LOG/guest-other.log")
    die "$1" "$pid" "$dir"
    check "$way: it is gone" wait_for 5 fails kill -0 "$pid"
    check "$way: the log says by what" daemon_says "the process that served the guest has ended before it, and its devices are closed: it was ended by $words" 5
    for devid in 51712 51728; do
        check "$way: the disk $devid is closed" wait_for 5 state_is 6 "$path/$devid"
        error_holds "$way" "$path/$devid" "$words"
    done
    check "$way: nobody has its images" nobody_has "$image" && check "$way: nor the second" nobody_has "$second"
    check "$way: another guest's disk goes on" wait_for 20 further $((before + 4))
    # Whatever the guest does with its disks now is answered.
    alive=$(guest_said doomed "%% alive")
    check "$way: its guest lives on" wait_for 20 lives_on $((alive + 3))
    check "$way: xl destroy" xl destroy doomed
    check "$way: the guest is gone" guest_wait_gone doomed
    check "$way: Xen has nothing left of it" wait_for 5 fails sh -c "xl list | grep -q '^(null)'"
    longest=$(tail -n +$((lines + 1)) "$GUEST_LOG/guest-other.log" | sed -n 's/.*longest pause us //p' | sort -n | tail -n 1)
    check "$way: the other guest's longest pause is at most 100 ms: $longest us" [ "$longest" -lt 100000 ]
    check "$way: so is its cgroup" wait_for 5 fails test -d "$dir"
    check "$way: what is held is what was before" daemon_holds_only "$held"
    GUEST_CMDLINE="xvt.script=io OPS=50"
    guest_config doomed 160 1 slim "$(virtio_disk "$image" xvda rw grant_usage=$grants)"
    check "$way: xl create, anew" guest_create doomed
    expect doomed "%% script io status 0" 60
    check "$way: that guest is gone" guest_wait_gone doomed
}

( sh -c 'echo $PPID' >$cgroup/cgroup.procs && exec xen-virtio-blk run --transport "$TRANSPORT" >>"$DAEMON_LOG" 2>&1 ) &
DAEMON_PID=$!
stream daemon "$DAEMON_LOG"
sleep 0.5
check "the daemon runs" kill -0 $DAEMON_PID || give_up "the daemon runs"
GUEST_CMDLINE=xvt.script=steady
guest_config other 128 1 slim "$(virtio_disk "$(image other 16M)" xvda)"
check "xl create other" guest_create other || give_up "a guest is created"
expect other "%% round"
held=$(daemon_holds)
note "held: $held"
killed SIGSEGV foreign "signal 11 (SIGSEGV)"
killed SIGKILL foreign "signal 9 (SIGKILL)"
killed SIGKILL grant "signal 9 (SIGKILL)"
killed memory foreign "the kernel, as it used more memory than its cgroup may"
check "the other guest found nothing wrong" [ "$(guest_said other "%% script steady status")" = 0 ]
check "xl destroy other" xl destroy other
check "the daemon stops" daemon_stop
