# about: the storage of two guests' disks stops answering: nobody waits for it but those who use that disk
# transport: both
# time-limit: 600

# stuck_disk NAME: makes a device whose requests `dmsetup suspend` keeps until `dmsetup resume`; prints its path.
stuck_disk() {
    local loop
    loop=$(losetup -f) && losetup "$loop" "$(image "$1" 16M)" &&
        dmsetup create "$1" --table "0 32768 linear $loop 0" && echo "/dev/mapper/$1"
}
export DM_DISABLE_UDEV=1

# opened NAME: by how many that device is open.
opened() { dmsetup info -c --noheadings -o open "$1"; }
is_closed() { [ "$(opened "$1")" = 0 ]; }

# rounds GUEST DISK: how many rounds it has done there.
rounds() { guest_said "$1" "%% $2round"; }
further() { [ "$(rounds "$1" "$2")" -gt "$3" ]; }

# goes_on GUEST DISK WHEN: checks that the disk answers, and how long its longest pause was since the last time.
goes_on() {
    local before=$(rounds "$1" "$2") longest
    check "$3: $1's ${2:-disk }goes on" wait_for 30 further "$1" "$2" $((before + 4))
    longest=$(grep -F -- "%% $2round, longest pause us" "$GUEST_LOG/guest-$1.log" | tail -n +"$(seen "$1" "$2")" |
        sed 's/.*longest pause us //' | sort -n | tail -n 1)
    rounds "$1" "$2" >"/tmp/seen.$1.$2"
    check "$3: $1's ${2:-disk }paused for at most 100 ms: $longest us" [ "$longest" -lt 100000 ]
}
seen() { cat "/tmp/seen.$1.$2" 2>/dev/null || echo 1; }

# state DOMID VDEV, state_is STATE DOMID VDEV
state() { xenstore-read "/local/domain/0/backend/virtio_disk/$1/$2/state" 2>/dev/null; }
state_is() { [ "$(state "$2" "$3")" = "$1" ]; }

# attached NAME WHEN: creates a guest with a disk, and checks that the disk was ready within a second.
attached() {
    local domid=$(($(xl list | awk 'NR > 1 { print $2 }' | sort -n | tail -n 1) + 1)) start
    guest_config "$1" 128 1 slim "$(virtio_disk "$(image "$1" 16M)" xvda)"
    guest_create "$1" &
    until [ -n "$(state "$domid" 51712)" ]; do sleep 0.01; done
    start=$(uptime_ms)
    until state_is 2 "$domid" 51712 || [ $(($(uptime_ms) - start)) -gt 20000 ]; do sleep 0.01; done
    start=$(($(uptime_ms) - start))
    check "$2: a new guest's disk is ready within 1 s: $start ms" [ $start -lt 1000 ]
    check "$2: xl create" wait $!
    expect "$1" "%% round"
}

# shows GUEST DISK STATE: whether an operator sees the disk in this state.
shows() { xen-virtio-blk status | grep -q "^$1 *$2 .* $3 "; }

# within MS WHAT COMMAND…: a check that the command succeeds, and in that time.
within() {
    local limit=$1 what=$2 start=$(uptime_ms); shift 2
    check "$what" "$@"
    start=$(($(uptime_ms) - start))
    check "$what: within $limit ms: $start ms" [ $start -le "$limit" ]
}

# holds_up_nobody ENGINE: the whole, with that engine.
holds_up_nobody() {
    local stuck path domid_b guest
    rm -f /tmp/seen.*
    note "with the engine $1"
    daemon_start run --engine "$1"
    # One of its vCPUs waits for the answer of a reset, longer than it does for RCU otherwise.
    GUEST_CMDLINE="xvt.script=stuck rcupdate.rcu_cpu_stall_suppress=1"
    guest_config a 192 2 slim "$(virtio_disk "$(image first 16M)" xvda)" "$(virtio_disk "$stuck_a" xvdb)" \
        "$(virtio_disk "$(image third 16M)" xvdc)"
    check "xl create a" guest_create a || give_up "a guest is created"
    GUEST_CMDLINE=xvt.script=steady
    guest_config b 128 1 slim "$(virtio_disk "$stuck_b" xvda)"
    check "xl create b" guest_create b || give_up "a guest is created"
    domid_b=$(xl domid b)
    expect a "%% vda round"
    expect a "%% vdc round"
    expect b "%% round"

    note "one of a's three disks and b's only one stop answering"
    dmsetup suspend --nolockfs --noflush stuck-a && dmsetup suspend --nolockfs --noflush stuck-b
    expect a "%% vdb is stuck"
    stuck=$(rounds b "")
    sleep 1
    check "b waits for its disk" [ "$(rounds b "")" = "$stuck" ]
    goes_on a "vda " "while one is stuck"
    goes_on a "vdc " "while one is stuck"
    check "an operator sees a's stalled disk" wait_for 5 shows a xvdb stalled
    check "and b's" shows b xvda stalled
    check "and that a's others are at work" shows a xvda active
    attached c "while they are stuck"
    expect a "%% resetting vdb"
    sleep 1
    goes_on a "vda " "while a reset waits"
    goes_on a "vdc " "while a reset waits"
    goes_on c "" "while a reset waits"
    attached d "while a reset waits"
    check "the reset isn't answered before the disk has let go" [ "$(guest_said a "%% vdb is reset")" = 0 ]

    note "one guest goes, and the other one's disk is detached"
    within 15000 "xl destroy a" xl destroy a
    goes_on c "" "when a was destroyed"
    goes_on d "" "when a was destroyed"
    check "a's stuck disk is open, still" fails is_closed stuck-a
    path=/local/domain/0/backend/virtio_disk/$domid_b/51712
    xenstore-write "$path/online" 0 "$path/state" 5
    sleep 3
    check "b's disk is closing, and not closed" state_is 5 "$domid_b" 51712
    check "b's disk is open, still" fails is_closed stuck-b
    goes_on c "" "while a disk is closing"
    check "an operator sees that b's disk is stuck" wait_for 5 shows b xvda stuck

    note "the storage answers again"
    dmsetup resume stuck-a
    within 2000 "a's disk is closed" wait_for 10 is_closed stuck-a
    check "nothing of a is left" wait_for 5 fails sh -c "xl list | grep -q '^(null)'"
    dmsetup resume stuck-b
    within 2000 "b's disk says that it is closed" wait_for 10 state_is 6 "$domid_b" 51712
    check "and is" is_closed stuck-b
    for guest in b c d; do
        check "xl destroy $guest" xl destroy $guest
    done
    check "the daemon stops" daemon_stop
    check "xenstore isn't said to have lost nodes" fails grep -F "xenstore has no nodes" "$DAEMON_LOG"
    check "c found nothing wrong" [ "$(guest_said c "%% script steady status")" = 0 ]
    check "d found nothing wrong" [ "$(guest_said d "%% script steady status")" = 0 ]
}

stuck_a=$(stuck_disk stuck-a) && stuck_b=$(stuck_disk stuck-b) || give_up "there is storage that can be stopped"
holds_up_nobody io_uring
holds_up_nobody sync
