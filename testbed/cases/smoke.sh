# about: Xen with IOREQ boots, dom0 is up, a guest does I/O on Xen's own PV disk
# daemon: none
check "xl info answers" xl info
check "Xen has the capability xen-3.0-aarch64" sh -c 'xl info | grep -q xen-3.0-aarch64'
check "dom0 has the device-model nodes" test -c /dev/xen/privcmd -a -c /dev/xen/evtchn -a -c /dev/xen/gntdev
GUEST_CMDLINE="xvt.script=smoke"
guest_config pv 192 1 slim "phy:$(image disk 64M),xvda,w"
check "xl create" guest_create pv || give_up "a guest is created"
expect pv "%% script smoke status 0"
check "the guest is gone" guest_wait_gone pv
