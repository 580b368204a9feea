# The interactive console: the daemon runs, its log is one `cat` away.
xen-virtio-blk run >/var/log/xen-virtio-blk.log 2>&1 &
echo "xen-virtio-blk runs as pid $!, log in /var/log/xen-virtio-blk.log"
echo "the host's target/testbed/share is /share; \`poweroff -f\` or Ctrl-A x ends it"
