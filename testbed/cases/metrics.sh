# about: the daemon keeps its figures in a file for Prometheus, at intervals and on SIGUSR1

file=/tmp/xen-virtio-blk.prom
daemon_start run --metrics-file $file --metrics-interval 2 --queues 2 --iops 100/1
check "the file is there" wait_for 5 test -s $file
check "it says nothing of disks that aren't there" fails grep domid= $file
GUEST_CMDLINE="xvt.script=idle"
guest_config busy 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create busy || give_up "a guest is created"
labels="domid=\"$(xl domid busy)\",devid=\"51712\""
expect busy "%% idle"
# metric NAME [LABELS]: its value now.
metric() { sed -n "s/^xen_virtio_blk_$1{$labels${2:+,$2}} //p" $file; }
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
check "xl destroy" xl destroy busy
gone() { ! grep -q "$labels" $file; }
check "what is gone is not told of" wait_for 10 gone
check "the daemon stops" daemon_stop
