# about: a guest's two vCPUs hammer one disk with O_DIRECT, many requests in flight, all verified
# transport: both
# xen: 4.19
# time-limit: 600

daemon_start run
for mode in foreign granting; do
    case $mode in granting) grants=1 ;; *) grants=0 ;; esac
    disk=$(image $mode 64M)
    GUEST_CMDLINE="xvt.script=hammer THREADS=2 DEPTH=16 OPS=300"
    guest_config $mode 192 2 slim "$(virtio_disk "$disk" xvda rw grant_usage=$grants)"
    check "xl create, $mode" guest_create $mode || give_up "a guest is created"
    id=virtio_disk/$(xl domid $mode)/51712
    expect $mode "%% cpus 2"
    expect $mode "%% bio hammer threads=2 depth=16" 200
    expect $mode "%% script hammer status 0"
    check "the guest is gone" guest_wait_gone $mode
    check "no request failed" [ "$(daemon_total "$id" host_errors)" = 0 ]
    requests=$(daemon_total "$id" requests) ioreqs=$(daemon_total "$id" ioreqs)
    note "$mode: $requests requests, $ioreqs ioreqs, $(daemon_total "$id" interrupts) interrupts"
    # A request alone takes three: its notification, and the reading and the acknowledgement of its interrupt.
    check "requests went in batches of two and more" [ $((3 * requests)) -gt $((2 * ioreqs)) ]
done
check "the daemon stops" daemon_stop
