# What the case has left to check in a shutdown, after xen-virtio-blk.service has stopped.
. /testbed/lib.sh
[ ! -e /run/at-shutdown.sh ] || . /run/at-shutdown.sh
echo "@@ end"
