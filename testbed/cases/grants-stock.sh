# about: Debian's own kernel, which lacks CONFIG_XEN_VIRTIO, with grant_usage=1: the log and the error node tell the cure
# xen: 4.19
# guest-kernel: stock

daemon_start run
idle=$(daemon_holds)
# Linux waits 10 s for a driver of xen,grant-dma, then uses plain addresses, and waits for its first request whatever
# the device's status says: the disk never comes up. The rest of the guest must run on: no vCPU may be left waiting for
# an answer.
GUEST_CMDLINE=xvt.tick
guest_config plain 256 1 stock "$(virtio_disk "$(image disk 64M)" xvda rw grant_usage=1)"
check "xl create" guest_create plain || give_up "a guest is created"
path=/local/domain/0/backend/virtio_disk/$(xl domid plain)/51712
check "the log tells the cure" daemon_says "write grant_usage=0" 120
check "the log names what the kernel lacks" daemon_says "CONFIG_XEN_VIRTIO"
error_holds "the device" "$path" CONFIG_XEN_VIRTIO
error_holds "the device" "$(error_dir "$path")" grant_usage=0
ticks=$(guest_said plain "%% tick")
ticks_on() { [ "$(guest_said plain "%% tick")" -gt $((ticks + 2)) ]; }
check "the guest runs on" wait_for 30 ticks_on
check "nothing of it is mapped through gntdev" fails grep -q /dev/xen/gntdev "/proc/$(guest_process plain)/maps"
check "xl destroy" xl destroy plain
check "the guest is gone" guest_wait_gone plain
check "no grant, mapping or event channel is left" daemon_holds_only "$idle"

# The cure.
GUEST_CMDLINE=
guest_config cured 256 1 stock "$(virtio_disk "$(image disk 64M)" xvda rw grant_usage=0)"
check "xl create, with grant_usage=0" guest_create cured || give_up "a guest is created"
expect cured "%% /dev/vda does not mount" 120
check "the driver is ready" daemon_says "driver is ready"
check "the guest is gone" guest_wait_gone cured
check "the daemon stops" daemon_stop
