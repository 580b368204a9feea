# about: an image is resized under its guest, which follows and uses what there is more
# transport: both

daemon_start run
disk=$(image disk 16M)
GUEST_CMDLINE=xvt.script=resize
guest_config elastic 160 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create elastic || give_up "a guest is created"
expect elastic "%% ready to grow"
truncate -s 32M "$disk"
kill -HUP "$DAEMON_PID"
check "the daemon says so" daemon_says "the disk has grown"
expect elastic "%% sectors 65536"
expect elastic "%% ready to shrink"
check "the image holds what the guest wrote at its new end" bio verify "$disk" 2 1M --offset 31M
truncate -s 24M "$disk"
kill -HUP "$DAEMON_PID"
check "the daemon warns" daemon_says "the disk is smaller than before"
expect elastic "%% sectors 49152"
expect elastic "%% script resize status 0"
check "the guest is gone" guest_wait_gone elastic
check "the image has the size it was given" [ "$(stat -c %s "$disk")" = $((24 << 20)) ]
check "the daemon stops" daemon_stop
