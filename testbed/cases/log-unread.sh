# about: the daemon logs to a pipe that nobody reads, while a guest works

mkfifo /tmp/log.fifo
# Open for both, so that opening waits for nobody; this reader never reads.
exec 5<>/tmp/log.fifo
xen-virtio-blk run 2>&5 &
DAEMON_PID=$!
sleep 0.5
check "the daemon stays up" kill -0 "$DAEMON_PID" || give_up "the daemon runs"
GUEST_CMDLINE=xvt.script=steady
guest_config steady 160 1 slim "$(virtio_disk "$(image disk 16M)" xvda)"
check "xl create" guest_create steady || give_up "a guest is created"
expect steady "%% round"
# Each makes it log some lines; the pipe holds 64 KiB.
i=0
while [ $i -lt 400 ]; do
    kill -USR1 "$DAEMON_PID"
    sleep 0.02
    i=$((i + 1))
done
writer=$(grep -lx log "/proc/$DAEMON_PID"/task/*/comm)
note "the log's thread waits in $(cat "${writer%comm}wchan")"

# further ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said steady "%% round")" -gt "$1" ]; }
rounds=$(guest_said steady "%% round")
check "the guest's disk goes on" wait_for 20 further $((rounds + 2))
check "xl destroy" xl destroy steady
check "the guest is gone" guest_wait_gone steady
check "the daemon stops" daemon_stop
