# about: a guest's kernel panics in mid-I/O; the daemon lives and serves the next
# transport: both
# allow: doomed| 

daemon_start run
idle=$(daemon_holds)
disk=$(image disk 64M)
GUEST_CMDLINE="xvt.script=crash panic=-1"
guest_config doomed 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create doomed || give_up "a guest is created"
expect doomed "%% crashing"
check "its kernel panics" guest_says doomed "Kernel panic"
check "the guest is gone" guest_wait_gone doomed
check "nothing of it is left" daemon_holds_only "$idle"
GUEST_CMDLINE=xvt.script=io
guest_config next 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create, the next guest" guest_create next || give_up "the next guest is created"
expect next "%% script io status 0" 120
check "the guest is gone" guest_wait_gone next
check "the daemon stops" daemon_stop
