# about: a device tree, or a number of interrupts, that doesn't go with how the daemon serves a guest: what comes of it, and what is said
# xen: 4.20

# tree NAME [OPTION…]: the lines of xl.cfg for a bus, whose tree is /tmp/NAME.dtb.
tree() {
    local name=$1; shift
    xen-virtio-blk device-tree "$@" 2>&1 >"/tmp/$name.dtb" | sed "s|/etc/xen/pci.dtb|/tmp/$name.dtb|"
}

daemon_start run --transport pci
GUEST_CMDLINE=xvt.script=io

# A guest that has no bus uses the window.
guest_config plain 160 1 slim "$(virtio_disk "$(image plain 64M)" xvda)"
check "no device tree: xl create" guest_create plain || give_up "a guest is created"
expect plain "%% script io status 0" 120
check "no device tree: the guest is gone" guest_wait_gone plain
check "no device tree: nothing was on a bus" fails daemon_says "looked at its PCI bus" 1

# Too few interrupts: the guest's driver is refused one, which is said.
GUEST_CONFIG=$(tree few | sed 's/^nr_spis.*/nr_spis = 12/')
guest_config few 160 1 slim "$(virtio_disk "$(image few 64M)" xvda)"
check "few interrupts: xl create" guest_create few || give_up "a guest is created"
check "few interrupts: the log says what to write" daemon_says "write nr_spis" 60
note "few interrupts: $(grep -F nr_spis "$DAEMON_LOG" | tail -n 1)"
xl destroy few
check "few interrupts: the guest is gone" guest_wait_gone few
check "the daemon stops" daemon_stop

# Interrupts for less than a vector a queue: the driver has its queues share one.
daemon_start run --transport pci --queues 2
GUEST_CONFIG=$(tree short --spis 2)
guest_config short 192 2 slim "$(virtio_disk "$(image short 64M)" xvda)"
check "two interrupts, two queues: xl create" guest_create short || give_up "a guest is created"
expect short "%% script io status 0" 120
check "two interrupts, two queues: the guest is gone" guest_wait_gone short

# A disk that is to be granted to, on a bus that doesn't say so.
GUEST_CONFIG=$(tree plain-bus)
guest_config ungranting 160 1 slim "$(virtio_disk "$(image ungranting 64M)" xvda rw grant_usage=1)"
check "no grants in the tree: xl create" guest_create ungranting || give_up "a guest is created"
check "no grants in the tree: the log says that the guest gives plain addresses" daemon_says "gives plain addresses" 60
xl destroy ungranting
check "no grants in the tree: the guest is gone" guest_wait_gone ungranting
check "the daemon stops" daemon_stop

# Nobody answers for the bus: the guest's kernel dies of that before it has a console.
daemon_start run
GUEST_CONFIG=$(tree lost)
guest_config lost 160 1 slim "$(virtio_disk "$(image lost 64M)" xvda)"
check "served by mmio: xl create" guest_create lost || give_up "a guest is created"
check "served by mmio: the guest ends" guest_wait_gone lost 20
check "served by mmio: it has not come up" [ "$(guest_said lost "%% guest up")" = 0 ]
check "served by mmio: the daemon stops" daemon_stop
