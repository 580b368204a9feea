# about: a guest of 4 GiB, whose I/O lands in the second RAM bank, at 0x200000000
# transport: both
# memory: 8192
# time-limit: 400

daemon_start run
disk=$(image disk 64M)
# The topmost 512 MiB, all in that bank, are the first that programs get.
GUEST_CMDLINE="xvt.script=big movablecore=512M"
guest_config big 4096 1 slim "$(virtio_disk "$disk" xvda)"
check "xl create" guest_create big || give_up "a guest is created"
id=virtio_disk/$(xl domid big)/51712
expect big "%% 200000000-" 120
# bio fails unless every page of its buffer lies there; what it prints is the lowest.
expect big "%% bio fill seed=5 bytes=4194304 buffer=0x2" 120
expect big "%% bio verify seed=5 bytes=4194304 buffer=0x2"
expect big "%% bio hammer threads=1"
expect big "%% script big status 0"
check "the guest is gone" guest_wait_gone big
check "no request failed" [ "$(daemon_total "$id" host_errors)" = 0 ]
check "the image holds what the second bank held" bio verify "$disk" 5 4M --offset 16M
check "the daemon stops" daemon_stop
