# about: a guest switches its disk's cache off and on; without one it has nothing to flush
# transport: both

daemon_start run
disk=$(image disk 16M)
GUEST_CMDLINE=xvt.script=writethrough
guest_config careful 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create careful || give_up "a guest is created"
id=virtio_disk/$(xl domid careful)/51712
expect careful "%% cache write back"
expect careful "%% stored behind a cache"
check "behind a cache it flushes" [ "$(daemon_now "$id" flushes)" -gt 0 ]
expect careful "%% cache write through"
expect careful "%% before"
flushes=$(daemon_now "$id" flushes) writes=$(daemon_now "$id" writes)
expect careful "%% after"
check "it has written more" [ "$(daemon_now "$id" writes)" -gt "$writes" ]
check "and not flushed: $flushes" [ "$(daemon_now "$id" flushes)" = "$flushes" ]
expect careful "%% script writethrough status 0"
check "the guest is gone" guest_wait_gone careful
check "no request failed" [ "$(daemon_total "$id" errors)" = 0 ]
check "the image holds what was written last" bio verify "$disk" 1 1M
check "the daemon stops" daemon_stop
