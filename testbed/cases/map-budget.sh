# about: a guest larger than dom0 has all of its memory take part in I/O, with the default budget and a small one
# transport: both
# memory: 3072
# dom0-memory: 512
# xen: 4.19
# time-limit: 900

for budget in default 32M; do
    case $budget in default) daemon_start run ;; *) daemon_start run --map-budget "$budget" ;; esac
    idle=$(daemon_holds)
    disk=$(image "disk-$budget" 1200M)
    GUEST_CMDLINE=xvt.script=all-memory
    guest_config "large-$budget" 1024 1 slim "$(virtio_disk "$disk" xvda)"
    check "xl create, $budget" guest_create "large-$budget" || give_up "a guest is created"
    id=virtio_disk/$(xl domid "large-$budget")/51712
    expect "large-$budget" "%% round 2" 200
    free=$(sed -n 's/^MemAvailable: *//p' /proc/meminfo)
    mapped=$(($(daemon_now "$id" bytes) >> 10))
    expect "large-$budget" "%% script all-memory status 0" 120
    check "the guest is gone" guest_wait_gone "large-$budget"
    note "$budget: $mapped KiB mapped, dom0 has $free, $(daemon_total "$id" evictions) evictions, $(daemon_total "$id" uncached) accesses by pages alone"
    check "no request failed" [ "$(daemon_total "$id" host_errors)$(daemon_total "$id" errors)" = 00 ]
    check "no access was refused" [ "$(daemon_total "$id" refusals)" = 0 ]
    case $budget in
    default) check "all of the guest may be mapped" [ "$mapped" -gt $((700 * 1024)) ] ;;
    *)
        # Besides the rings.
        check "no more than the budget is mapped" [ "$mapped" -le $((32 * 1024 + 256)) ]
        check "chunks were given up for others" [ "$(daemon_total "$id" evictions)" -gt 100 ]
        ;;
    esac
    check "nothing of it is left" daemon_holds_only "$idle"
    check "the daemon stops" daemon_stop
    rm -f "$disk"
done
