# about: on Debian's own Xen, `xen-virtio-blk check` says that the IOREQ servers are missing, and what to do
# xen: debian

xen-virtio-blk check >/tmp/check
status=$?
sed 's/^/   /' /tmp/check
check "status 1" [ $status = 1 ]
check "the IOREQ servers are missing" grep -q "^MISSING .*IOREQ" /tmp/check
check "it says what to do" grep -q CONFIG_IOREQ_SERVER=y /tmp/check
check "nothing else is missing" [ "$(grep -c ^MISSING /tmp/check)" = 1 ]
# A guest is refused at once, with the reason where libxl points.
daemon_start run
guest_config refused 128 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
guest_refused refused "without CONFIG_IOREQ_SERVER"
check "the daemon stops" daemon_stop
