# about: the daemon's log is on a file system that fills up, and has room again, while a guest works

mkdir -p /mnt/log
mount -t tmpfs -o size=256k none /mnt/log
DAEMON_LOG=/mnt/log/xen-virtio-blk.log
daemon_start run
GUEST_CMDLINE=xvt.script=steady
guest_config steady 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create steady || give_up "a guest is created"
expect steady "%% round"
dd if=/dev/zero of=/mnt/log/fill bs=1k 2>/dev/null
note "$(df /mnt/log | tail -n 1)"
for i in 1 2 3 4 5 6 7 8 9 10; do
    kill -USR1 "$DAEMON_PID"
    sleep 0.3
done
sleep 1
check "the daemon lives" kill -0 "$DAEMON_PID"

# further ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said steady "%% round")" -gt "$1" ]; }
rounds=$(guest_said steady "%% round")
check "the guest's disk goes on" wait_for 20 further $((rounds + 2))

rm /mnt/log/fill
kill -USR1 "$DAEMON_PID"
check "the log tells how much of it is missing" daemon_says "lines of this log are missing here"
check "xl destroy" xl destroy steady
check "the guest is gone" guest_wait_gone steady
check "the daemon stops" daemon_stop
