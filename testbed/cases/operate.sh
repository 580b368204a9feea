# about: an operator asks the daemon what it does, and changes sizes, limits and the log while guests run
# time-limit: 600

# blk COMMAND…: the operator's program.
blk() { xen-virtio-blk "$@"; }
check "nothing can be asked of a daemon that doesn't run" fails blk status
daemon_start run
status=$(blk status)
note "$status"
check "there is nothing yet" sh -c 'echo "$0" | grep -q "No guest has a virtio disk here"' "$status"
check "the socket is root's" [ "$(stat -c '%a %U' /run/xen-virtio-blk/control)" = "600 root" ]
check "another user is refused" fails setpriv --clear-groups --regid 12345 --reuid 12345 xen-virtio-blk status

GUEST_CMDLINE=xvt.script=steady
disk=$(image mail 16M)
guest_config mail 160 1 slim "$(virtio_disk "$disk" xvda)" "$(virtio_disk "$(image second 16M)" xvdb ro)"
check "xl create" guest_create mail || give_up "a guest is created"
GUEST_CMDLINE=xvt.script=idle
guest_config web 128 1 slim "$(virtio_disk "$(image web 16M)" xvda rw grant_usage=1)"
check "xl create, with grants" guest_create web || give_up "a guest is created"
expect mail "%% round"
expect web "%% idle"

# row GUEST DISK: its line of the table. field N GUEST DISK: a field of it.
row() { blk status | grep "^$1 *$2 "; }
field() { row "$2" "$3" | awk -v n="$1" '{ print $n }'; }
blk status | while read -r line; do note "$line"; done
check "a disk at work" [ "$(row mail xvda | awk '{ print $3, $4, $5, $6 }')" = "$disk rw foreign active" ]
check "one that is read-only" [ "$(field 4 mail xvdb) $(field 8 mail xvdb)" = "ro 0" ]
check "one with grants, at rest" [ "$(row web xvda | awk '{ print $4, $5, $6, $8, $12 }')" = "rw grant active 0 0" ]
check "its rate" [ "$(field 8 mail xvda)" -gt 20 ]
check "one guest's disks alone" [ "$(blk status web | wc -l)" = 2 ]
check "a guest that isn't there is told so" sh -c 'xen-virtio-blk status nobody 2>&1 | grep -q "there are mail, web"'
json=$(blk status --json mail)
note "$json"
check "as JSON" sh -c 'echo "$0" | grep -q "^{\"disks\":\[{\"guest\":\"mail\",\"uuid\":\"[0-9a-f-]*\",\"domid\":'"$(xl domid mail)"',\"disk\":\"xvda\""' "$json"
check "with the process that serves it" sh -c 'echo "$0" | grep -q "\"pid\":'"$(guest_process mail)"',"' "$json"
check "again and again" [ "$(timeout 8 xen-virtio-blk status --watch --json | wc -l)" -ge 3 ]

iops() { blk status --interval 4 | awk -v name="$1" '$1 == name && $2 == "xvda" { print $8 }'; }
free=$(iops mail)
check "a limit" blk limit mail xvda --iops 5/1
slow=$(iops mail)
check "holds at once" [ "$slow" -le 6 ]
check "and is told of" sh -c 'xen-virtio-blk status --json mail | grep -q "\"per_second\":5,\"burst\":1"'
check "none again" blk limit mail "$disk" --iops none
fast=$(iops mail)
note "requests a second: $free, $slow with the limit of 5, then $fast"
check "holds at once, too" [ "$fast" -gt $((free / 2)) ]
check "and the guest goes on" wait_for 30 sh -c "[ \$(grep -cF '%% round' $GUEST_LOG/guest-mail.log) -gt $(guest_said mail '%% round') ]"

truncate -s 32M "$disk"
text=$(blk resize mail xvda)
note "$text"
check "a resize" [ "$text" = "mail xvda: 33554432 bytes, 16777216 before" ]
check "of all disks of a guest" [ "$(blk resize mail | wc -l)" = 2 ]
check "of a disk that isn't there" fails blk resize mail xvdz

check "no debugging yet" fails grep -q DEBUG "$DAEMON_LOG"
check "another log level" blk log-level debug
truncate -s 16M "$disk"
check "is changed" blk resize mail xvda
guest_config third 128 1 slim "$(virtio_disk "$(image third 16M)" xvda)"
check "xl create" guest_create third || give_up "a guest is created"
expect third "%% idle"
check "the log has more" daemon_says DEBUG
check "the level that it had" blk log-level info
lines=$(grep -c DEBUG "$DAEMON_LOG")
check "xl destroy" xl destroy third
check "the guest is gone" guest_wait_gone third
check "the log has no more of it" [ "$(grep -c DEBUG "$DAEMON_LOG")" = "$lines" ]
check "what is no level is refused" fails blk log-level louder=and=louder

kill -KILL "$DAEMON_PID"
check "without a daemon there is no answer" fails blk status
daemon_start run
check "the next daemon knows what it has taken over" [ "$(field 6 mail xvda) $(field 6 web xvda)" = "active active" ]
check "and has it limited" blk limit web xvda --bps 1M
for guest in mail web; do
    check "xl destroy $guest" xl destroy $guest
    check "$guest is gone" guest_wait_gone $guest
done
check "and nothing is left to be shown" sh -c 'xen-virtio-blk status | grep -q "No guest has"'
check "the daemon stops" daemon_stop
