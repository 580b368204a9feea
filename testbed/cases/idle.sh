# about: a guest whose disks rest costs no CPU time, and what its process and the daemon have of memory

# of PID FIELD: a number of its status.
of() { sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$1/$3" | head -n 1; }
# ticks PID: of CPU time, hundredths of a second.
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }
# wakes PID: how often each of its threads has run, without the kernel's own for io_uring, which wake by themselves.
wakes() { awk '/^Name:/ { name = $2 } name ~ /^iou-/ { next } /ctxt_switches:/ { runs[name] += $2 } END { for (name in runs) print name, runs[name] }' "/proc/$1/task"/*/status; }

daemon_start run
GUEST_CMDLINE=xvt.script=idle
guest_config resting 160 1 slim "$(virtio_disk "$(image first 16M)" xvda)" "$(virtio_disk "$(image second 16M)" xvdb)"
check "xl create" guest_create resting || give_up "a guest is created"
expect resting "%% idle"
served_by=$(guest_process resting)
sleep 5
for pid in $DAEMON_PID $served_by; do
    ticks $pid >/tmp/ticks.$pid
    wakes $pid >"/tmp/wakes.$pid"
done
sleep 60
for who in "daemon $DAEMON_PID" "process $served_by"; do
    pid=${who#* } who="the guest's ${who%% *}"
    [ "$pid" != "$DAEMON_PID" ] || who="the daemon"
    ticks=$(($(ticks "$pid") - $(cat "/tmp/ticks.$pid")))
    # What has run since, by thread.
    wakes "$pid" | awk 'NR == FNR { before[$1] = $2; next } $2 > before[$1] { print $1, $2 - before[$1] }' "/tmp/wakes.$pid" - >/tmp/woken
    wakes=$(awk '{ sum += $2 } END { print sum + 0 }' /tmp/woken)
    note "$who: $ticks ticks in 60 s, $wakes times awake ($(tr '\n' ' ' </tmp/woken))" \
        "$(of "$pid" Rss smaps_rollup) KiB resident, $(of "$pid" Pss smaps_rollup) KiB of them its share, $(ls "/proc/$pid/task" | wc -l) threads"
    check "$who has used no CPU time" [ "$ticks" = 0 ]
    check "$who was not woken" [ "$wakes" -le 2 ]
done
check "xl destroy" xl destroy resting
check "the daemon stops" daemon_stop
