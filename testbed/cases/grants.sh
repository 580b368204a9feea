# about: a guest that grants its pages (grant_usage=1): raw I/O, a file system, the driver let go and back
# transport: both
# xen: 4.19

daemon_start run
idle=$(daemon_holds)
GUEST_CMDLINE=xvt.script=grants
guest_config granting 192 1 slim "$(virtio_disk "$(image disk 64M)" xvda rw grant_usage=1)"
check "xl create" guest_create granting || give_up "a guest is created"
id=virtio_disk/$(xl domid granting)/51712
expect granting "%% guest up"
check "the driver is ready" daemon_says "driver is ready"
# The rings, which are the one thing that stays mapped. Such a disk has no other way to the guest's
# memory: an address without bit 63 would fail.
process=$(guest_process granting grant)
check "rings are mapped through gntdev" grep -q /dev/xen/gntdev "/proc/$process/maps"
check "only the ioreq page is mapped through privcmd" [ "$(grep -c /dev/xen/privcmd "/proc/$process/maps")" = 1 ]
expect granting "%% compatible xen,grant-dma"
expect granting "%% verified 4 files" 120
expect granting "%% the driver let go and came back"
expect granting "%% complaints 0"
expect granting "%% script grants status 0"
check "the guest is gone" guest_wait_gone granting
features=$(sed -n 's/.*driver is ready.* features=\(0x[0-9a-f]*\).*/\1/p' "$DAEMON_LOG" | head -n 1)
maps=$(daemon_total "$id" grant_maps) copies=$(daemon_total "$id" grant_copies)
note "features $features, $(daemon_total "$id" requests) requests, $maps grant maps, $copies grant copies"
check "grants were mapped" [ "$maps" -gt 0 ]
check "ACCESS_PLATFORM (33) was negotiated" [ $((features >> 33 & 1)) = 1 ]
check "no request failed" [ "$(daemon_total "$id" host_errors)" = 0 ]
check "no grant, mapping or event channel is left" daemon_holds_only "$idle"
check "the daemon stops" daemon_stop
