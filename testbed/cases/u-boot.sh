# about: U-Boot, as the guest's firmware, loads kernel and initramfs from our disk by polling; Linux then takes the disk over
# guest-firmware: u-boot

daemon_start run
disk=$(image boot 96M)
mkdir -p /tmp/root/boot
cp /guest/slim/Image /guest/slim/initrd /tmp/root/boot
# Without what U-Boot's ext4 doesn't know.
check "the disk has a file system with kernel and initramfs" \
    mkfs.ext4 -q -O ^metadata_csum,^orphan_file -d /tmp/root "$disk" || give_up "the disk has its files"
GUEST_CMDLINE="xvt.script=u-boot"
guest_config firmware 256 1 u-boot "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create firmware || give_up "a guest is created"
id=virtio_disk/$(xl domid firmware)/51712
expect firmware "bytes read in" 60
expect firmware "%% guest up, script u-boot" 120
expect firmware "%% kernel and initramfs are whole"
expect firmware "%% verified"
expect firmware "%% script u-boot status 0"
check "the guest is gone" guest_wait_gone firmware
check "two drivers, one after the other" [ "$(grep -c "driver is ready" "$DAEMON_LOG")" = 2 ]
check "no request failed" [ "$(daemon_total "$id" host_errors)" = 0 ]
check "the daemon stops" daemon_stop
check "dom0 finds the file system clean" e2fsck -f -n "$disk"
