# about: two guests at once, each with a disk of its own at work, one of them granting, one daemon
# transport: both
# xen: 4.19

daemon_start run
idle=$(daemon_holds)
GUEST_CMDLINE="xvt.script=io OPS=300 DEPTH=8"
guest_config one 160 1 slim "$(virtio_disk "$(image one 64M)" xvda)"
guest_config two 160 1 slim "$(virtio_disk "$(image two 64M)" xvda rw grant_usage=1)"
check "xl create, first" guest_create one || give_up "a guest is created"
check "xl create, second" guest_create two || give_up "a guest is created"
for guest in one two; do
    expect $guest "%% bio hammer threads=1" 120
    expect $guest "%% verified 4 files" 120
    expect $guest "%% script io status 0"
done
check "the first is gone" guest_wait_gone one
check "the second is gone" guest_wait_gone two
# Both drivers were ready before either disk gave its totals.
check "they were served at the same time" [ "$(sed '/disk totals/q' "$DAEMON_LOG" | grep -c "driver is ready")" = 2 ]
check "no request failed" [ "$(grep -c "disk totals.* host_errors=0 " "$DAEMON_LOG")" = 2 ]
check "nothing of them is left" daemon_holds_only "$idle"
check "the daemon stops" daemon_stop
