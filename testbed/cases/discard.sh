# about: what a guest discards, dom0 gets back: blkdiscard, a file system's discards, fstrim
# transport: both
# time-limit: 400

daemon_start run
disk=$(image disk 32M)
GUEST_CMDLINE=xvt.script=discard
guest_config giver 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create giver || give_up "a guest is created"
id=virtio_disk/$(xl domid giver)/51712

# holds TEXT MIN MAX: when the guest says TEXT, the image takes so many KiB.
holds() {
    local kib
    expect giver "%% $1" 120
    kib=$(($(stat -c %b "$disk") / 2))
    note "$1: the image takes $kib KiB"
    check "$1: $2 to $3 KiB" [ "$kib" -ge "$2" -a "$kib" -le "$3" ]
}
holds filled 16384 16384
holds discarded 0 0
# The journal, 4 MiB, is zeroed in a way that keeps its storage.
holds stored 12288 14336
holds removed 4096 6144
holds trimmed 4096 6144
expect giver "%% script discard status 0"
check "the guest is gone" guest_wait_gone giver
check "it discarded" [ "$(daemon_total "$id" discards)" -gt 0 ]
check "no request failed" [ "$(daemon_total "$id" errors)" = 0 ]
check "the file system is clean" e2fsck -f -n "$disk"

GUEST_CMDLINE="xvt.script=idle"
guest_config keeper 160 1 slim "$(virtio_disk "$disk" xvda rw no-discard)"
check "xl create, without discards" guest_create keeper || give_up "a guest is created"
expect keeper "%% idle"
features=$(sed -n 's/.*driver is ready.* features=\(0x[0-9a-f]*\).*/\1/p' "$DAEMON_LOG" | tail -n 1)
check "DISCARD (13) and WRITE_ZEROES (14) aren't negotiated: $features" [ $((features >> 13 & 3)) = 0 ]
check "xl destroy" xl destroy keeper
check "the daemon stops" daemon_stop
