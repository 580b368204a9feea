# about: a guest whose memory is all mapped gives half of it back under I/O, and Xen has it at once
# transport: both
# memory: 2560
# xen: 4.19

free_mib() { xl info free_memory; }
freed_at_least() { [ $(($(free_mib) - before)) -ge "$1" ]; }
rounds_at_least() { [ "$(guest_said ballooning "%% round")" -ge "$1" ]; }

daemon_start run
idle=$(daemon_holds)
GUEST_CMDLINE=xvt.script=balloon
guest_config ballooning 768 1 slim "$(virtio_disk "$(image data 640M)" xvda)"
check "xl create" guest_create ballooning || give_up "a guest is created"
domid=$(xl domid ballooning) id=virtio_disk/$(xl domid ballooning)/51712
expect ballooning "%% touched" 120
check "I/O goes on" wait_for 60 rounds_at_least 2
mapped=$(($(daemon_now "$id" bytes) >> 20))
note "$mapped MiB are mapped"
check "most of the guest's memory is mapped" [ "$mapped" -gt 500 ]
before=$(free_mib)
# xl mem-set is of no use on Arm; the guest's balloon driver follows this node by itself.
xenstore-write "/local/domain/$domid/memory/target" $(((768 - 384) * 1024))
check "Xen gets back what was asked for" wait_for 60 freed_at_least 384
note "asked for 384 MiB, Xen has $(($(free_mib) - before)) MiB more; $(($(daemon_now "$id" bytes) >> 20)) MiB are mapped"
rounds=$(guest_said ballooning "%% round")
check "verified I/O goes on" wait_for 60 rounds_at_least $((rounds + 3))
check "Xen keeps it while I/O goes on" freed_at_least 384
xenstore-write "/local/domain/$domid/memory/target" $((768 * 1024))
check "the guest gets it back" wait_for 60 fails freed_at_least 16
rounds=$(guest_said ballooning "%% round")
check "verified I/O goes on in new memory" wait_for 60 rounds_at_least $((rounds + 3))
check "no request failed" [ "$(daemon_now "$id" host_errors)$(daemon_now "$id" errors)" = 00 ]
check "xl destroy" xl destroy ballooning
check "the guest is gone" guest_wait_gone ballooning
check "nothing of it is left" daemon_holds_only "$idle"
check "the daemon stops" daemon_stop
