# about: the daemon is killed 50 times under load: no guest notices, and the next one takes over all of them
# xen: 4.19
# time-limit: 1800

metrics=/tmp/xen-virtio-blk.prom
start() { daemon_start run --metrics-file $metrics --metrics-interval 1; }

rounds() { guest_said "$1" "%% $2 round"; }
further() { [ "$(rounds "$1" "$2")" -gt "$3" ]; }
# goes_on GUEST DISK: true once it has done more.
goes_on() { wait_for 20 further "$1" "$2" "$(rounds "$1" "$2")"; }
# longest GUEST DISK: its longest pause so far, in us.
longest() {
    sed -n "s/.*%% $2 round, longest pause us //p" "$GUEST_LOG/guest-$1.log" | sort -n | tail -n 1
}
state_is() { [ "$(xenstore-read "/local/domain/0/backend/virtio_disk/$2/$3/state")" = "$1" ]; }
taken_over() { [ "$(grep -c " taken over id=" "$DAEMON_LOG")" -ge "$1" ]; }

start
GUEST_CMDLINE=xvt.script=adopted
disk=$(image disk 16M)
guest_config one 160 1 slim "$(virtio_disk "$disk" xvda)" "$(virtio_disk "$(image further 16M)" xvdb)"
guest_config two 160 1 slim "$(virtio_disk "$(image granted 16M)" xvda rw grant_usage=1)"
check "xl create one" guest_create one || give_up "a guest is created"
check "xl create two" guest_create two || give_up "a guest is created"
domid=$(xl domid one)
expect one "%% vdb round"
expect two "%% vda round"
processes_of_guests="$(guest_process one) $(guest_process two)"
note "served by $processes_of_guests"

killed=0 adopted=0 served=0
for round in $(seq 50); do
    kill -KILL "$DAEMON_PID" && killed=$((killed + 1))
    wait "$DAEMON_PID"
    goes_on one vda && goes_on two vda && served=$((served + 1))
    start
    wait_for 10 taken_over $((round * 3)) && adopted=$((adopted + 1))
done
check "killed 50 times: $killed" [ $killed = 50 ]
check "each time, the guests' disks went on without it: $served" [ $served = 50 ]
check "each time, the next one took over all three disks: $adopted" [ $adopted = 50 ]
check "the guests' processes are the same" [ "$(guest_process one) $(guest_process two)" = "$processes_of_guests" ]
for disk_of in "one vda" "one vdb" "two vda"; do
    check "$disk_of goes on" goes_on $disk_of
    check "$disk_of: the longest pause is at most 100 ms: $(longest $disk_of) us" [ "$(longest $disk_of)" -lt 100000 ]
done

note "what can be done with disks that were taken over"
truncate -s 32M "$disk"
kill -HUP "$DAEMON_PID"
expect one "%% sectors 65536"
metric() { grep -q "^xen_virtio_blk_requests_total{guest=\"$1\",.*,disk=\"$2\",.*op=\"read\"} [1-9]" $metrics; }
for device in "one xvda" "one xvdb" "two xvda"; do
    check "the metrics have the disk $device" wait_for 5 metric $device
done
check "a disk says its totals when asked" [ -n "$(daemon_now "virtio_disk/$domid/51712" requests)" ]
path=/local/domain/0/backend/virtio_disk/$domid/51728
xenstore-write "$path/online" 0 "$path/state" 5
check "one of two disks is detached" wait_for 5 state_is 6 "$domid" 51728
check "the other one goes on" goes_on one vda

# attached_when WHEN COMMAND…: kills the daemon once the command is done, while a guest is created.
attached_when() {
    local when=$1 creating; shift
    guest_config next 128 1 slim "$(virtio_disk "$(image next 16M)" xvda)"
    guest_create next &
    creating=$!
    "$@"
    kill -KILL "$DAEMON_PID"
    wait "$DAEMON_PID"
    start
    check "killed $when: xl create" wait $creating
    expect next "%% vda round"
    check "killed $when: xl destroy" xl destroy next
    check "killed $when: nothing is left of it" wait_for 5 fails sh -c "xl list | grep -q '^(null)'"
}
# until_said TEXT: until the log has one more line with that.
until_said() {
    local before=$(grep -c "$1" "$DAEMON_LOG") left=20000
    until [ "$(grep -c "$1" "$DAEMON_LOG")" -gt "$before" ]; do
        left=$((left - 1)); [ $left -gt 0 ] || { fail "the log says: $1"; return; }
        sleep 0.001
    done
}
note "killed while a disk is attached"
GUEST_CMDLINE=xvt.script=adopted
for delay in 0.1 0.2 0.3 0.4; do
    attached_when "after $delay s" sleep $delay
done
attached_when "when the guest's process is started" until_said "started the process of the guest"
attached_when "when the guest's process is confined" until_said "serving a guest domid"
attached_when "when the disk is served" until_said " serving id="

note "a guest that ends while there is no daemon"
served_by=$(guest_process two)
kill -KILL "$DAEMON_PID"
wait "$DAEMON_PID"
check "xl destroy two" xl destroy two
check "its process ends by itself" wait_for 10 fails kill -0 "$served_by"
start
check "two found no disk at fault" [ "$(guest_said two failed)" = 0 ]

note "a guest's process that is killed while there is no daemon"
lives_on() { [ "$(guest_said doomed "%% alive")" -gt "$1" ]; }
for sharing in foreign grant; do
    case $sharing in foreign) grants=0 ;; *) grants=1 ;; esac
    GUEST_CMDLINE=xvt.script=doomed
    guest_config doomed 160 1 slim "$(virtio_disk "$(image doomed 16M)" xvda rw grant_usage=$grants)" \
        "$(virtio_disk "$(image second 16M)" xvdb rw grant_usage=$grants)"
    check "$sharing: xl create" guest_create doomed || give_up "a guest is created"
    expect doomed "%% busy"
    doomed=$(xl domid doomed) served_by=$(guest_process doomed)
    kill -KILL "$DAEMON_PID" "$served_by"
    wait "$DAEMON_PID"
    sleep 1
    alive=$(guest_said doomed "%% alive")
    sleep 2
    check "$sharing: its vCPU waits" [ "$(guest_said doomed "%% alive")" = "$alive" ]
    start
    check "$sharing: it goes on when the next daemon has started" wait_for 20 lives_on $((alive + 3))
    for devid in 51712 51728; do
        check "$sharing: the disk $devid is closed" wait_for 5 state_is 6 "$doomed" $devid
        error_holds "$sharing" "/local/domain/0/backend/virtio_disk/$doomed/$devid" "it has ended while no supervisor ran"
    done
    check "$sharing: the other guest goes on" goes_on one vda
    check "$sharing: xl destroy" xl destroy doomed
    check "$sharing: nothing is left of it" wait_for 5 fails sh -c "xl list | grep -q '^(null)'"
done

note "the end in order"
check "one goes on" goes_on one vda
started=$(uptime_ms)
check "SIGTERM: status 0" daemon_stop
check "SIGTERM: within a second" [ $(($(uptime_ms) - started)) -le 1000 ]
check "one goes on without a daemon" goes_on one vda
start
check "and with the next one" goes_on one vda
check "one found its disk not at fault" [ "$(guest_said one "vda failed")" = 0 ]
check "xl destroy one" xl destroy one
alone() { [ "$(processes)" = "$DAEMON_PID" ]; }
check "no guest's process is left" wait_for 10 alone
check "nothing of theirs is left in the run directory" [ -z "$(ls /run/xen-virtio-blk/guests)" ]
check "the daemon stops" daemon_stop
