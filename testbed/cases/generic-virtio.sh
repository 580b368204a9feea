# about: xl's generic virtio device is recognised and refused, with what to write instead
# xen: 4.18

daemon_start run
GUEST_CONFIG='virtio = [ "type=virtio,device2,transport=mmio,grant_usage=0" ]'
GUEST_CMDLINE=xvt.script=io
guest_config generic 128 1 slim
# libxl waits for no backend of such a device: the guest starts all the same, and finds no device in
# the window. Left unanswered, the window would be an external abort that kills it.
check "xl create" guest_create generic
expect generic "Wrong magic value 0xffffffff"
expect generic "%% guest up"
check "the daemon's log says so" daemon_says 'id=virtio/1/0 error="virtio = ['
error_holds generic "$(error_dir /local/domain/0/backend/virtio/1/0)" "specification=virtio"
xl destroy generic
unset GUEST_CONFIG
guest_config right 160 1 slim "$(virtio_disk "$(image disk 64M)" xvda)"
check "xl create, with the right line" guest_create right || give_up "a guest is created"
expect right "%% script io status 0" 120
check "the guest is gone" guest_wait_gone right
check "the daemon stops" daemon_stop
