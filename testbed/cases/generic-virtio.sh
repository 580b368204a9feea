# about: xl's generic virtio device is recognised and refused, with what to write instead
# allow: generic|

daemon_start run
GUEST_CONFIG='virtio = [ "type=virtio,device2,transport=mmio,grant_usage=0" ]'
GUEST_CMDLINE=xvt.script=io
guest_config generic 128 1 slim
# libxl waits for no backend of such a device: the guest starts, and what it makes of a device that
# isn't served is its own affair.
check "xl create" guest_create generic
check "the daemon's log says so" daemon_says 'not served id=virtio/1/0 error="virtio = ['
error_holds generic "$(error_dir /local/domain/0/backend/virtio/1/0)" "specification=virtio"
xl destroy generic
unset GUEST_CONFIG
guest_config right 160 1 slim "$(virtio_disk "$(image disk 64M)" xvda)"
check "xl create, with the right line" guest_create right || give_up "a guest is created"
expect right "%% script io status 0" 120
check "the guest is gone" guest_wait_gone right
check "the daemon stops" daemon_stop
