# about: a hostile driver, one action after the other and on two vCPUs at once; the daemon and a normal guest don't mind
# dom0-memory: 1024
# tool: hostile
# time-limit: 1800

daemon_start run
GUEST_CMDLINE="xvt.script=steady"
guest_config normal 160 1 slim "$(virtio_disk "$(image normal 16M)" xvda)"
check "xl create, the normal guest" guest_create normal || give_up "a guest is created"
expect normal "%% round" 60
GUEST_CMDLINE="xvt.script=hostile xvt.end=stay"
guest_config hostile 160 2 slim "$(virtio_disk "$(image hostile 64M)" xvda)" \
    "$(virtio_disk "$(image kept 16M)" xvdb ro)"
check "xl create, the hostile guest" guest_create hostile || give_up "a guest is created"
expect hostile "%% hostile ready"

# ticks: the CPU time of the daemon and the guests' processes so far, in hundredths of a second.
ticks() {
    for pid in $(processes); do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ sum += $12 + $13 } END { print sum }'
}
# busy_for: how much of it five seconds take, while the hostile guest rests.
busy_for() {
    local start=$(ticks)
    sleep 5
    echo $(($(ticks) - start))
}
resident() {
    for pid in $(processes); do cat "/proc/$pid/status"; done | awk '/^VmRSS:/ { sum += $2 } END { print sum }'
}
process=$(guest_process hostile)

cpu=$(busy_for) memory=$(resident) holds=$(daemon_holds) rounds=$(guest_said normal "%% round")
note "before: cpu $cpu/500, memory $memory KiB, $holds"
expect hostile "%% hostile done" 1500
sleep 2
check "every action was answered as the specification lets it" \
    fails grep -F "%% hostile failed" "$GUEST_LOG/guest-hostile.log"
expect hostile "%% script hostile status 0" 5
note "after: cpu $(busy_for)/500, memory $(resident) KiB, $(daemon_holds)"
check "the daemon's CPU time is as before" [ "$(busy_for)" -le $((cpu * 2 + 25)) ]
check "the daemon's memory is as before, but for 4 MiB" [ "$(resident)" -le $((memory + 4096)) ]
check "the daemon lives" kill -0 "$DAEMON_PID"
check "the hostile guest's process lives" [ "$(guest_process hostile)" = "$process" ]
more_rounds() { [ "$(guest_said normal "%% round")" -gt $((rounds + 10)) ]; }
check "the normal guest's verified rounds went on" more_rounds
lines=$(wc -l <"$DAEMON_LOG")
note "the daemon's log has $lines lines"
check "the log is bounded" [ "$lines" -lt 2000 ]
check "xl destroy" xl destroy hostile
check "xl destroy, the normal guest" xl destroy normal
check "the guests are gone" guest_wait_gone hostile
check "the daemon stops" daemon_stop
