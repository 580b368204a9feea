# about: as many disks as Xen lets a guest have, of 10 guests, with 4 queues each: what they cost in memory, and no CPU
# memory: 4096
# dom0-memory: 1024
# time-limit: 1800

# What is measured. libxl has interrupts for 11 virtio devices of a guest (GUEST_VIRTIO_MMIO_SPI_FIRST to _LAST).
guests=10 disks=11 queues=4
# MiB of each guest.
memory=48

# of PID FIELD FILE: a number of its status.
of() { sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$1/$3" | head -n 1; }
# ticks PID: of CPU time, hundredths of a second.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }
available() { sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo; }
# costs WHO PID: what it has, in words.
costs() {
    note "$1: $(of "$2" Rss smaps_rollup) KiB resident, $(of "$2" Pss smaps_rollup) KiB of them its share," \
        "$(cat "/proc/$2/task"/*/comm | grep -vc '^iou-') threads, $(ls "/proc/$2/fd" | wc -l) descriptors"
}

# As systemd has it by `Delegate=yes`: the kernel counts each process's own memory, in the kernel too.
cgroup=/sys/fs/cgroup/xen-virtio-blk
echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir $cgroup && setfattr -n user.delegate -v 1 $cgroup || give_up "there is a delegated cgroup"
( sh -c 'echo $PPID' >$cgroup/cgroup.procs && exec xen-virtio-blk run --queues $queues >>"$DAEMON_LOG" 2>&1 ) &
DAEMON_PID=$!
stream daemon "$DAEMON_LOG"
sleep 0.5
check "the daemon runs" kill -0 $DAEMON_PID || give_up "the daemon runs"
costs "the daemon, without guests" $DAEMON_PID
before=$(available)
for guest in $(seq $guests); do
    set --
    for disk in $(seq $disks); do
        letter=$(echo abcdefghijk | cut -c "$disk")
        set -- "$@" "$(virtio_disk "$(image "guest-$guest-$letter" 16M)" "xvd$letter")"
    done
    GUEST_CMDLINE=xvt.script=many
    guest_config "guest-$guest" $memory $queues slim "$@"
    check "xl create guest-$guest" guest_create "guest-$guest" || give_up "a guest is created"
    expect "guest-$guest" "%% read $disks disks" 120
done
check "no guest has other queues than CPUs" fails grep -l "%% .* has other queues" "$GUEST_LOG"/guest-*.log
sleep 5
note "dom0: $(((before - $(available)) / guests)) KiB of its memory a guest, with what Xen's toolstack has of each"
served_by=
for guest in $(seq $guests); do
    served_by="$served_by $(guest_process "guest-$guest")"
done
for pid in $DAEMON_PID $served_by; do
    ticks "$pid" >/tmp/ticks.$pid
done
sleep 20
costs "the daemon" $DAEMON_PID
# What a guest's process has by kind: KiB resident, and its share.
note "of one guest's process: $(awk '
    /^[0-9a-f]+-[0-9a-f]+ / {
        kind = $6 == "" || $6 == "[heap]" || $6 == "[stack]" ? "heap_and_stacks" : $6
        sub(/.*\//, "", kind)
    }
    /^Rss:/ { rss[kind] += $2 }
    /^Pss:/ { pss[kind] += $2 }
    END { for (kind in rss) if (rss[kind]) printf "%s %d/%d, ", kind, rss[kind], pss[kind] }
' "/proc/${served_by##* }/smaps") KiB resident/its share"
for pid in $served_by; do
    costs "a guest's process" "$pid"
    dir=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    check "the process $pid needed less than the tasks that it may have" [ "$(cat "/sys/fs/cgroup$dir/pids.peak")" -lt "$(cat "/sys/fs/cgroup$dir/pids.max")" ]
    note "its cgroup: $(($(cat "/sys/fs/cgroup$dir/memory.current") / 1024)) KiB, of the kernel's" \
        "$(($(sed -n 's/^kernel //p' "/sys/fs/cgroup$dir/memory.stat") / 1024)), $(cat "/sys/fs/cgroup$dir/pids.peak") tasks at most of $(cat "/sys/fs/cgroup$dir/pids.max")"
done
for pid in $DAEMON_PID $served_by; do
    check "the process $pid has used no CPU time in 20 s" [ "$(ticks "$pid")" = "$(cat /tmp/ticks.$pid)" ]
done
for pid in $served_by; do
    check "the share of the process $pid is at most 8 MiB" [ "$(of "$pid" Pss smaps_rollup)" -le 8192 ]
done
for guest in $(seq $guests); do
    check "xl destroy guest-$guest" xl destroy "guest-$guest"
done
alone() { [ "$(processes)" = "$DAEMON_PID" ]; }
check "no guest's process is left" wait_for 20 alone
costs "the daemon, afterwards" $DAEMON_PID
check "the daemon stops" daemon_stop
