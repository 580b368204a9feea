# about: two queues over io_uring, each with a thread where it is told to run, all data verified
# transport: both
# time-limit: 600

# One CPU is all that dom0 has here; which queue gets which is for the tests of the crate.
daemon_start run --engine io_uring --queues 2 --cpus 0
disk=$(image disk 64M)
GUEST_CMDLINE="xvt.script=queues xvt.end=stay"
guest_config two 192 2 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create two || give_up "a guest is created"
domid=$(xl domid two)
expect two "%% cpus 2 queues 2"
expect two "%% bio hammer threads=2 depth=16" 200
expect two "%% script queues status 0"

# worked QUEUE: its thread has run, on that CPU only.
worked() {
    local task
    for task in "/proc/$process/task"/*; do
        [ "$(cat "$task/comm")" = "vq-$domid-51712-$1" ] || continue
        grep -E '^(Cpus_allowed_list|voluntary)' "$task/status"
        grep -q "^Cpus_allowed_list:[[:space:]]*0\$" "$task/status" || return 1
        [ "$(sed -n 's/^voluntary_ctxt_switches:[[:space:]]*//p' "$task/status")" -gt 20 ]
        return
    done
    return 1
}
process=$(guest_process two)
for queue in 0 1; do
    check "queue $queue was served, on CPU 0" worked $queue
done
check "io_uring is used" sh -c "ls -l /proc/$process/fd | grep -q io_uring"
check "xl destroy" xl destroy two
check "the guest is gone" guest_wait_gone two
check "no request failed" [ "$(daemon_total "virtio_disk/$domid/51712" errors)" = 0 ]
check "the image holds what the second CPU wrote" bio verify "$disk" 2 8M --offset 16M
check "the daemon stops" daemon_stop
