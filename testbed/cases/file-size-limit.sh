# about: a write beyond the daemon's RLIMIT_FSIZE is that guest's I/O error, and disturbs nobody else
# allow: far|

# In units of 512 bytes: 8 MiB.
ulimit -S -f 16384
daemon_start run
ulimit -S -f unlimited
note "$(grep "Max file size" "/proc/$DAEMON_PID/limits")"
GUEST_CMDLINE=xvt.script=steady
guest_config second 160 1 slim "$(virtio_disk "$(image second 8M)" xvda)"
check "xl create, a guest within the limit" guest_create second || give_up "a guest is created"
expect second "%% round"
GUEST_CMDLINE=xvt.script=far
guest_config far 160 1 slim "$(virtio_disk "$(image disk 64M)" xvda)"
check "xl create, a guest beyond it" guest_create far || give_up "a guest is created"
expect far "%% near write status 0"
expect far "%% far write status 1" 30
check "the daemon lives" kill -0 "$DAEMON_PID"
check "the log names the error" daemon_says "File too large"

# further ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said second "%% round")" -gt "$1" ]; }
rounds=$(guest_said second "%% round")
check "the other guest's disk goes on" wait_for 20 further $((rounds + 2))
check "xl destroy" xl destroy second
check "both guests are gone" guest_wait_gone second && guest_wait_gone far
check "the daemon stops" daemon_stop
