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
# The process that serves the domain.
serving() {
    local dir
    for dir in /proc/[0-9]*; do
        case "$(tr '\0' ' ' 2>/dev/null <"$dir/cmdline")" in
        *" --guest-process $1-"*) echo "${dir#/proc/}" ;;
        esac
    done
}
# further NAME ROUNDS: true once the guest has done more than that.
further() { [ "$(guest_said "$1" "%% round")" -gt "$2" ]; }
log_lines() { journalctl --quiet --output=cat --unit="$UNIT" | grep -cF -- "$1"; }
says() { [ "$(log_lines "$1")" -gt 0 ]; }
says_more() { [ "$(log_lines "$1")" -gt "$2" ]; }

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
domid=$(xl domid steady)
served=$(serving "$domid")
check "the guest has a process of its own" [ -n "$served" ]
status() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$served/status" | tr '\t' ' '; }
id=$((1879048192 + domid))
check "which runs as a user of its own" [ "$(status Uid)" = "$id $id $id $id" ]
check "and group" [ "$(status Gid)" = "$id $id $id $id" ]
check "has no capabilities" [ "$(status CapEff) $(status CapPrm) $(status CapBnd)" = "0000000000000000 0000000000000000 0000000000000000" ]
check "makes only system calls that it was left" [ "$(status Seccomp)" = 2 ]
check "sees no file" [ -z "$(ls -A "/proc/$served/root")" ]
check "and has a cgroup of its own" grep -q "/$UNIT/guest-$domid-foreign\$" "/proc/$served/cgroup"
check "an operator sees the guest's disk" sh -c 'xen-virtio-blk status | grep -q "^steady *xvda .* active "'
check "and may limit it" xen-virtio-blk limit steady xvda --iops 10K
check "no part of the sandbox is missing or off" fails sh -c "journalctl -q -o cat -u $UNIT | grep -e MISSING -e 'is OFF' -e 'in part only'"
note "$(journalctl -q -o cat -u "$UNIT" | grep -F "serving a guest")"

# goes_on WHAT COMMAND…: a check of COMMAND, after which the guest is served on by the same process, and by a new main
# process, which has taken it over.
goes_on() {
    local what=$1 pid=$(main_pid) taken=$(log_lines "taken over id=") rounds
    shift
    check "$what" "$@"
    check "$what: the service is active" wait_for 60 replaced "$pid"
    check "$what: the guest's process is the same" [ "$(serving "$domid")" = "$served" ]
    check "$what: it is taken over" wait_for 30 says_more "taken over id=" "$taken"
    rounds=$(guest_said steady "%% round")
    check "$what: the guest's disk goes on" wait_for 60 further steady $((rounds + 3))
}
replaced() { is_active && [ "$(main_pid)" != "$1" ]; }
stop_and_start() {
    local rounds
    systemctl stop "$UNIT" || return 1
    ! is_active || return 1
    rounds=$(guest_said steady "%% round")
    wait_for 60 further steady $((rounds + 3)) || return 1
    systemctl start "$UNIT"
}
goes_on "systemctl restart" systemctl restart "$UNIT"
goes_on "systemctl stop and start" stop_and_start
goes_on "what is killed is started again" sh -c "kill -KILL $(main_pid)"
goes_on "a signal to every process of the service" systemctl kill "$UNIT"
goes_on "an upgrade" install
check "an upgrade: the main process runs the new program" sh -c "! readlink /proc/$(main_pid)/exe | grep deleted"
check "systemctl reload" systemctl reload "$UNIT"
totals=$(log_lines "disk totals")
check "SIGUSR1 to every process" systemctl kill --signal=USR1 "$UNIT"
check "has the disk's figures logged" wait_for 30 says_more "disk totals" "$totals"
check "and ends none" [ "$(serving "$domid")" = "$served" ]

dpkg --force-depends --remove xen-virtio-blk >/tmp/remove 2>&1 || fail "removing the package: $(cat /tmp/remove)"
check "removing the package ends the service" fails is_active
check "and says that guests keep their disks" grep -q "guests keep their disks" /tmp/remove
rounds=$(guest_said steady "%% round")
check "which is so" wait_for 60 further steady $((rounds + 3))
goes_on "the package is installed again" install
check "none of the guest's rounds failed" [ "$(guest_said steady "%% script steady status")" = 0 ]
check "xl destroy" xl destroy steady
check "the process ends with its guest" wait_for 30 fails [ -d "/proc/$served" ]
check "and leaves nothing behind" wait_for 10 sh -c "[ -z \"\$(ls -A /run/xen-virtio-blk/guests)\" ] && ! ls -d /sys/fs/cgroup/system.slice/$UNIT/guest-*"

GUEST_CMDLINE=xvt.script=idle
guest_config unlucky 160 1 slim "$(virtio_disk "$(image unlucky 16M)" xvda)"
check "xl create" guest_create unlucky || give_up "a guest is created"
expect unlucky "%% idle" 120
pid=$(main_pid)
kill -KILL "$(serving "$(xl domid unlucky)")"
check "a guest's process that is killed is told of" wait_for 30 says "signal 9 (SIGKILL)"
check "its end is not the service's" [ "$(main_pid)" = "$pid" ]
check "xl destroy" xl destroy unlucky

GUEST_CMDLINE=xvt.script=shutdown
guest_config last 160 1 slim "$(virtio_disk "$(image last 16M)" xvda)"
check "xl create, before the shutdown" guest_create last || give_up "a guest is created"
expect last "%% round" 120
# Read from the journal when the service has stopped.
cat >/run/at-shutdown.sh <<'END'
log() { journalctl --quiet --output=cat --boot --unit=xen-virtio-blk.service; }
log | tail -n 12 | sed 's/^/daemon| /'
check "the guest ended at shutdown, and the service after it" sh -c 'journalctl -q -o cat -b -u xen-virtio-blk.service | tail -n 5 | grep -F "told to stop" | grep -q "guests=0"'
check "no guest has lost a disk" fails sh -c 'journalctl -q -o cat -b -u xen-virtio-blk.service | sed "1,/last.img/d" | grep -F "SIGKILL"'
END
