# about: guests destroyed in mid-I/O, foreign and granting, each time the daemon lets go of all it held
# transport: both
# xen: 4.19
# time-limit: 600

daemon_start run
idle=$(daemon_holds)
note "idle: $idle"
disk=$(image disk 16M)
GUEST_CMDLINE=xvt.script=busy
for round in 1 2 3 4 5 6 7; do
    case $round in [67]) grants=1 ;; *) grants=0 ;; esac
    guest_config doomed 160 1 slim "$(virtio_disk "$disk" xvda rw grant_usage=$grants)"
    check "xl create $round" guest_create doomed || give_up "a guest is created"
    id=virtio_disk/$(xl domid doomed)/51712
    expect doomed "%% busy"
    sleep 0.0$round
    note "in round $round, grant_usage=$grants: $(daemon_holds)"
    check "it is at work" [ "$(daemon_holds)" != "$idle" ]
    check "xl destroy $round" xl destroy doomed
    check "nothing of round $round is left" daemon_holds_only "$idle"
    check "it was at work: $(daemon_total "$id" requests) requests" [ "$(daemon_total "$id" requests)" -gt 40 ]
done
unset grants
GUEST_CMDLINE=xvt.script=io
guest_config next 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create, the next guest" guest_create next
expect next "%% script io status 0" 120
check "the guest is gone" guest_wait_gone next
check "nothing is left" daemon_holds_only "$idle"
check "the daemon stops" daemon_stop
