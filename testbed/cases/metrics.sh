# about: the daemon keeps its figures in a file for Prometheus, at intervals and on SIGUSR1

file=/tmp/xen-virtio-blk.prom
daemon_start run --metrics-file $file --metrics-interval 2 --queues 2 --iops 100/1
check "the file is there" wait_for 5 test -s $file
check "it says nothing of disks that aren't there" fails grep guest= $file
GUEST_CMDLINE="xvt.script=idle"
guest_config busy 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create busy || give_up "a guest is created"
uuid=$(xenstore-read "/local/domain/$(xl domid busy)/vm")
# labels GUEST UUID IMAGE
labels() { echo "guest=\"$1\",uuid=\"$2\",disk=\"xvda\",image=\"$3\""; }
labels=$(labels busy "${uuid#/vm/}" $IMAGES/disk.img)
expect busy "%% idle"
# metric NAME [LABELS]: its value now.
metric() { sed -n "s|^xen_virtio_blk_$1{$labels${2:+,$2}} ||p" $file; }
later() { [ "$(metric requests_total 'op="write"')" -gt 0 ]; }
check "the file is written anew by itself" wait_for 10 later
id=virtio_disk/$(xl domid busy)/51712
check "and at once when asked" [ -n "$(daemon_now "$id" requests)" ]
sleep 0.5
sed 's/^/   /' $file | grep -v _bucket
for op in read write; do
    note "$op: $(metric requests_total "op=\"$op\"") requests, $(metric bytes_total "op=\"$op\"") bytes"
    check "$op: the file and the log agree" [ "$(metric requests_total "op=\"$op\"")" = "$(daemon_total "$id" ${op}s)" ]
    check "$op: every request was timed" \
        [ "$(metric requests_total "op=\"$op\"")" = "$(metric request_duration_seconds_count "op=\"$op\"")" ]
done
check "1 MiB was written" [ "$(metric bytes_total 'op="write"')" = 1048576 ]
check "the limit held requests back" [ "$(metric throttled_total)" -gt 0 ]
check "nothing is in flight" [ "$(metric in_flight_requests)" = 0 ]
check "the disk is at work" [ "$(metric disk_state 'state="active"') $(metric disk_state 'state="stalled"')" = "1 0" ]
check "one disk is" grep -qF 'xen_virtio_blk_disks{state="active"} 1' $file
mapped=$(sed -n 's/^xen_virtio_blk_guest_mapped_bytes{guest="busy",.*mapping="foreign"} //p' $file)
check "of the guest's memory some is mapped: $mapped bytes" [ "$mapped" -gt 0 ]
check "xl destroy" xl destroy busy
gone() { ! grep -q "$labels" $file; }
check "what is gone is not told of" wait_for 10 gone

GUEST_ON_REBOOT=restart GUEST_CMDLINE="xvt.script=reboot BOOTS=3 xvt.end=stay"
guest_config again 160 1 slim "$(virtio_disk "$(image again 16M)" xvda)"
check "xl create" guest_create again || give_up "a guest is created"
first=$(xl domid again)
uuid=$(xenstore-read "/local/domain/$first/vm")
labels=$(labels again "${uuid#/vm/}" $IMAGES/again.img)
written() { [ "$(metric bytes_total 'op="write"')" -ge "$1" ]; }
for boot in 1 2 3; do
    expect again "%% boot $boot" 120
    check "the series goes on in boot $boot" wait_for 20 written $((boot << 20))
done
check "the guest has another number" [ "$(xl domid again)" != "$first" ]
check "each boot's MiB was counted once" fails written $((4 << 20))
check "the disk is told of once" [ "$(grep -c '^xen_virtio_blk_in_flight_requests{guest="again"' $file)" = 1 ]
check "xl destroy" xl destroy again
check "the daemon stops" daemon_stop
