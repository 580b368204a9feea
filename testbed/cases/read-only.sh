# about: a read-only disk: it mounts, no write goes through, and the image stays as it was
# transport: both

disk=$(image disk 32M)
mkdir -p /tmp/tree
dd if=/dev/urandom of=/tmp/tree/file bs=64k count=16 2>/dev/null
(cd /tmp/tree && sha256sum file >sums)
check "an image with a file system" mkfs.ext4 -q -F -d /tmp/tree "$disk"
before=$(sum "$disk")
daemon_start run
GUEST_CMDLINE=xvt.script=read-only
guest_config reader 160 1 slim "$(virtio_disk "$disk" xvda ro)"
check "xl create" guest_create reader || give_up "a guest is created"
id=virtio_disk/$(xl domid reader)/51712
expect reader "%% ro 1"
expect reader "%% bio refuse"
expect reader "file: OK"
expect reader "%% script read-only status 0"
check "the guest is gone" guest_wait_gone reader
check "something was read" [ "$(daemon_total "$id" bytes_read)" -gt 65536 ]
check "nothing was written" [ "$(daemon_total "$id" bytes_written)" = 0 ]
check "the image is what it was" [ "$(sum "$disk")" = "$before" ]
check "the daemon stops" daemon_stop
