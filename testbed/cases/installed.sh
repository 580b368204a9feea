# about: the package in a dom0 that runs systemd: installed, supervised, upgraded under a guest, shut down
# dom0: systemd
# xen: 4.20
# memory: 2048
# dom0-memory: 1024
# time-limit: 900

UNIT=xen-virtio-blk.service
PACKAGE=/testbed/xen-virtio-blk.deb
# Of the userland's packages dpkg knows nothing here.
install() { dpkg --force-depends --install "$PACKAGE"; }
main_pid() { systemctl show --property=MainPID --value "$UNIT"; }
is_active() { systemctl --quiet is-active "$UNIT"; }
# further NAME ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said "$1" "%% round")" -gt "$2" ]; }
says() { journalctl --quiet --output=cat --unit="$UNIT" | grep -qF -- "$1"; }

note "$(systemctl --version | head -n 1), Linux $(uname -r), up after $(uptime_ms) ms"
check "the toolstack is up" wait_for 60 xl list
check "the package is installed" install || give_up "the package is installed"
check "the service is active" wait_for 60 is_active
check "the guests' user ids have a base" sh -c 'grep -q "^xen-virtio-guest:[^:]*:1879048192:1879048192:" /etc/passwd'
check "dom0 can serve disks" xen-virtio-blk check
check "io_uring isn't refused to the service" fails says "io_uring can't be used"

# What a process under the unit's restrictions must be able to give up, and what it must not gain.
cat >/run/confine.sh <<'END'
set -ex
unshare --mount --net --ipc --uts mount -t tmpfs none /tmp
setpriv --clear-groups --regid 1879048193 --reuid 1879048193 --inh-caps=-all --bounding-set=-all --no-new-privs \
    sh -c 'grep -q "^CapBnd:.0000000000000000" /proc/self/status && [ "$(id -u)" = 1879048193 ]'
refused() { if "$@"; then echo "not refused: $*"; exit 1; fi; }
refused unshare --user true
refused dd if=/dev/kmsg of=/dev/null count=0
refused dd if=/dev/zero of=/usr/bin/test-of-the-testbed count=1
dd if=/dev/xen/evtchn of=/dev/null count=0
END
sed -e 's|^ExecStart=.*|ExecStart=/bin/sh /run/confine.sh|' -e 's/^Type=.*/Type=oneshot/' -e '/^Restart/d' -e '/^WatchdogSec/d' \
    /usr/lib/systemd/system/$UNIT >/run/systemd/system/confine.service
confine() { systemctl daemon-reload && systemctl start confine || { journalctl -q -o cat -u confine; return 1; }; }
check "a process of the service can confine itself, and has no more than it needs" confine

GUEST_CMDLINE=xvt.script=steady
guest_config steady 160 1 slim "$(virtio_disk "$(image steady 16M)" xvda)"
check "xl create" guest_create steady || give_up "a guest is created"
expect steady "%% round" 120
pid=$(main_pid)
note "$(grep -e CapBnd -e NoNewPrivs -e Seccomp: /proc/"$pid"/status | tr '\n\t' '  ')"

for verb in stop restart; do
    check "systemctl $verb is refused" fails systemctl $verb "$UNIT"
done
check "systemctl reload is not" systemctl reload "$UNIT"
check "an upgrade" install
install >/tmp/upgrade 2>&1
check "says that the old one goes on" grep -q "process $pid goes on" /tmp/upgrade
check "and so it is" [ "$(main_pid)" = "$pid" ]
rounds=$(guest_said steady "%% round")
check "the guest's disk goes on" wait_for 60 further steady $((rounds + 3))

check "removing the package" dpkg --force-depends --remove xen-virtio-blk
check "leaves the guest its daemon" [ "$(main_pid)" = "$pid" ]
rounds=$(guest_said steady "%% round")
check "and its disk" wait_for 60 further steady $((rounds + 3))
check "xl destroy" xl destroy steady
check "the daemon ends with its last guest" wait_for 60 fails is_active
check "the package is installed again" install
check "the service is active again" wait_for 60 is_active

pid=$(main_pid)
kill -KILL "$pid"
check "what is killed is started again" wait_for 60 sh -c "systemctl --quiet is-active $UNIT && [ \"\$(systemctl show -P MainPID $UNIT)\" != $pid ]"

GUEST_CMDLINE=xvt.script=shutdown
guest_config last 160 1 slim "$(virtio_disk "$(image last 16M)" xvda)"
check "xl create, before the shutdown" guest_create last || give_up "a guest is created"
expect last "%% round" 120
# Read from the journal when the service has stopped.
cat >/run/at-shutdown.sh <<'END'
log() { journalctl --quiet --output=cat --boot --unit=xen-virtio-blk.service; }
log | tail -n 12 | sed 's/^/daemon| /'
check "the guest ended at shutdown, and the daemon after it" sh -c 'journalctl -q -o cat -b -u xen-virtio-blk.service | tail -n 5 | grep -qF "no guest is served any more"'
check "no guest has lost a disk" fails sh -c 'journalctl -q -o cat -b -u xen-virtio-blk.service | grep -qF "it loses these"'
END
