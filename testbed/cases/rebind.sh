# about: a guest's driver lets go of its disk and takes it again, twenty times
# transport: both

daemon_start run
GUEST_CMDLINE=xvt.script=rebind
guest_config fickle 160 1 slim "$(virtio_disk "$(image disk 64M)" xvda)"
check "xl create" guest_create fickle || give_up "a guest is created"
expect fickle "%% bound 20 times"
expect fickle "%% script rebind status 0"
check "the guest is gone" guest_wait_gone fickle
check "the daemon stops" daemon_stop
