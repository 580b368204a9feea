# about: disk images of the host reach dom0 by name, and the host checks them afterwards
# daemon: none
# disk: root rootfs
# disk: data 16M
# host-fsck: root
root=$(host_disk root) data=$(host_disk data)
note "root $root, data $data"
check "the root file system is clean" e2fsck -f -n "$root"
check "it mounts" mount -t ext4 "$root" /mnt
check "it is Debian" test -s /mnt/etc/debian_version -a -x /mnt/sbin/init -a -x /mnt/bin/bash
check "it unmounts" umount /mnt
check "a disk is written" bio fill "$data" 1 1M
check "and read back" bio verify "$data" 1 1M
check "no disk has another name" fails host_disk other
