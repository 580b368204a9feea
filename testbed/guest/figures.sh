# Times requests of several sizes and depths, a mark before and after each series. Between them it
# sleeps, which costs nothing in virtual time, so that dom0 can look at its counters while all is quiet.
disk=/dev/vda
[ -b "$disk" ] || disk=/dev/xvda
# What the toolstack still does for the guest's creation is over by then.
sleep 10
mark() {
    # A virtio-mmio device or a PV one has one interrupt, a virtio-pci one several.
    echo "%% mark $(awk '/virtio|blkif/ { all += $2 } END { print all + 0 }' /proc/interrupts) $*"
    sleep 3
}
for depth in 1 32; do
    for series in 4096:512 65536:128 1048576:32; do
        for op in r w; do
            # The first requests map the guest's memory and warm the caches; they don't count.
            bio bench $disk $op ${series%:*} $depth --depth $depth >/dev/null || exit 1
            mark begin
            result=$(bio bench $disk $op ${series%:*} ${series#*:} --depth $depth) || exit 1
            mark "$result"
        done
    done
done
