# about: missing, unreadable, locked and absurd disks: a clear error each, while another guest works on
# time-limit: 600

mkfifo /tmp/fifo
good=$(image good 16M) spare=$(image spare 16M)
truncate -s 0 /dev/shm/empty.img
daemon_start run
GUEST_CMDLINE=xvt.script=steady
guest_config good 160 1 slim "$(virtio_disk "$good" xvda)"
check "xl create, the good guest" guest_create good || give_up "the good guest is created"
gooddomid=$(xl domid good)
expect good "%% round"
one_guest=$(daemon_holds)

# bad NAME DISKLINE TEXT: a guest whose disk can't be served, by way of the toolstack.
bad() {
    guest_config "$1" 128 1 slim "$2"
    guest_refused "$1" "$3"
}
bad empty "$(virtio_disk /dev/shm/empty.img xvda)" "/dev/shm/empty.img"
bad locked "$(virtio_disk "$good" xvda)" "in use"
bad readlocked "$(virtio_disk "$good" xvda ro)" "in use"

# absurd WHAT DOMID/DEVID TEXT [NODE=VALUE | NODE]…: a device as libxl would write it but for these
# nodes, which have another value or, without `=`, are missing.
absurd() {
    local what=$1 path=/local/domain/0/backend/virtio_disk/$2 domid=${2%/*} text=$3 node
    shift 3
    for node in "frontend=/local/domain/$domid/device/virtio_disk/51712" "frontend-id=$domid" "params=$spare" \
        online=1 mode=w specification=virtio transport=mmio base=33554432 irq=33 grant_usage=0 "$@"; do
        case $node in
        *=*) xenstore-write "$path/${node%%=*}" "${node#*=}" ;;
        *) xenstore-rm "$path/$node" ;;
        esac
    done
    xenstore-write "$path/state" 1
    wait_for 5 xenstore-exists "$path/error"
    error_holds "$what" "$path" "$text"
    error_holds "$what" "$(error_dir "$path")" "$text"
    check "$what: its state node is gone" fails xenstore-exists "$path/state"
}
long=$(printf '%01000d' 0 | tr 0 9)
absurd "base is a word" 900/51712 '"banana"' base=banana
absurd "base is huge" 901/51712 'base' base=18446744073709551104
absurd "base is enormous" 902/51712 'base' "base=$long$long"
absurd "irq is private" 903/51712 'irq' irq=7
absurd "irq overflows" 904/51712 'irq' irq=4294967329
absurd "no params" 905/51712 'params is missing' params
# libxl lets none of these through for a disk of dom0's, if they are so when it looks.
absurd "no image" 918/51712 '/dev/shm/nowhere.img does not exist' params=/dev/shm/nowhere.img
absurd "a directory" 919/51712 'is a directory' params=/dev/shm
absurd "a FIFO" 920/51712 'is a FIFO' params=/tmp/fifo mode=r
absurd "a character device" 921/51712 'is a character device' params=/dev/zero
absurd "params is empty" 906/51712 'params' params=
absurd "params is relative" 907/51712 'params' params=disk.img
absurd "params is long" 908/51712 'too long' "params=/$long$long$long"
absurd "params is no UTF-8" 909/51712 '/dev/shm/' "params=/dev/shm/$(printf '\377\376')"
absurd "another frontend" 910/51712 'frontend-id' frontend-id=911
absurd "frontend-id is no number" 912/51712 'frontend-id' frontend-id=nine
absurd "mode is rw" 913/51712 'mode' mode=rw
absurd "another transport" 914/51712 'transport' transport=pci
absurd "another specification" 915/51712 'specification' specification=xen
absurd "grant_usage is 2" 916/51712 'grant_usage' grant_usage=2
absurd "no such domain" 917/51712 'domain 917'
absurd "a window of another disk" "$gooddomid/51728" '0x2000000-0x20001ff' irq=34
absurd "no such device number" "$gooddomid/4294967295" 'base' base=banana
for path in x/51712 99999/51712 "$gooddomid/x" "$gooddomid/4294967296"; do
    xenstore-write "/local/domain/0/backend/virtio_disk/$path/state" 1
done
left=$(xenstore-list /local/domain/0/error/backend/virtio_disk | grep -c '^9..$')
check "the errors of guests that are gone don't pile up: $left left" [ "$left" -le 1 ]

check "the daemon holds no more than before" daemon_holds_only "$one_guest"

# further ROUNDS: true once the good guest has done more than that.
further() { [ "$(guest_said good "%% round")" -gt "$1" ]; }
rounds=$(guest_said good "%% round")
note "the good guest has done $rounds rounds"
check "the good guest works on" wait_for 20 further $((rounds + 2))
check "it found nothing wrong" [ "$(guest_said good "%% script steady status")" = 0 ]
check "xl destroy" xl destroy good
check "its disk is let go of" daemon_says "disk totals id=virtio_disk/$gooddomid/51712"
check "none of its requests failed" [ "$(daemon_total "virtio_disk/$gooddomid/51712" host_errors)" = 0 ]
check "the daemon stops" daemon_stop
