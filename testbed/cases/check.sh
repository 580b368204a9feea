# about: `xen-virtio-blk check` finds all in order on a Xen with IOREQ servers

check "status 0" xen-virtio-blk check
xen-virtio-blk check | sed 's/^/   /'
check "nothing is missing or lacking" fails sh -c 'xen-virtio-blk check | grep -e MISSING -e lacking'
for what in sandbox users cgroups; do
    check "it looks at the $what of guests" sh -c "xen-virtio-blk check | grep -q '^ok .*$what of guests'"
done
check "it asked Xen" sh -c 'xen-virtio-blk check | grep -q "^ok .*IOREQ"'
# What it made to ask with is gone again.
check "it leaves no event channel" fails grep evtchn:xen-virtio-blk /proc/interrupts
