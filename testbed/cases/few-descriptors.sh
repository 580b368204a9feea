# about: a daemon with few descriptors refuses a disk at xl create, or serves it; no guest hangs in its boot
# time-limit: 900

refused=0 served=0
for n in 10 14 18 20 22 24 26 28 32 40; do
    # The hard limit: the daemon raises the soft one.
    [ -e "$DAEMON_LOG" ] || stream daemon "$DAEMON_LOG"
    sh -c "ulimit -H -S -n $n; exec xen-virtio-blk run" >>"$DAEMON_LOG" 2>&1 &
    DAEMON_PID=$!
    sleep 1
    if ! kill -0 "$DAEMON_PID" 2>/dev/null; then
        note "limit $n: $(tail -n 1 "$DAEMON_LOG")"
        check "limit $n: the daemon ends with what to do" grep -q "no more than $n files.*LimitNOFILE=" "$DAEMON_LOG"
        continue
    fi
    name=guest$n
    GUEST_CMDLINE=xvt.script=two-disks
    guest_config $name 160 1 slim "$(virtio_disk "$(image a$n 16M)" xvda)" "$(virtio_disk "$(image b$n 16M)" xvdb)"
    if guest_create $name; then
        served=$((served + 1))
        note "limit $n: created, $(daemon_holds)"
        expect $name "%% script two-disks status 0" 60
        check "$name is gone" guest_wait_gone $name
    else
        refused=$((refused + 1))
        note "limit $n: refused: $(grep 'not served' "$DAEMON_LOG" | tail -n 1 | cut -c1-400)"
        check "limit $n: the log says what to do" grep -q "not served.*no more than $n files.*LimitNOFILE=" "$DAEMON_LOG"
        xl destroy $name 2>/dev/null
        sleep 2
    fi
    check "limit $n: the daemon stops" daemon_stop
    : >"$DAEMON_LOG"
done
check "some were refused: $refused" [ "$refused" -gt 0 ]
check "some were served: $served" [ "$served" -gt 0 ]
