# about: Debian's own kernel with a virtio console: two guests, messages both ways, a resize, destroyed in mid-output, taken over
# transport: both
# xen: 4.19
# guest-kernel: stock
# binary: virtio-console
# disk: one rootfs
# disk: two rootfs
# time-limit: 600

BACKEND_LOG=/var/log/virtio-console.log

# state_is STATE DIR: true if the device whose directory is DIR is in STATE.
state_is() { [ "$(xenstore-read "$2/state")" = "$1" ]; }

# console NAME: creates a guest with a disk and a console, whose output comes to /tmp/NAME.out.
console() {
    local name=$1 domid
    GUEST_CMDLINE=xvt.mode=console
    GUEST_CONFIG='virtio = [ "backend=0,type=virtio,device3,transport=mmio,grant_usage=0" ]'
    guest_config "$name" 160 1 stock "$(virtio_disk "$(host_disk "$name")" xvda)"
    # libxl waits for no backend of such a device, so it is for us to wait before the guest runs.
    check "$name: xl create" guest_create "$name" -p || give_up "a guest is created"
    domid=$(xl domid "$name")
    check "$name: its backend stands ready" wait_for 20 state_is 2 "/local/domain/0/backend/virtio/$domid/0"
    terminal=$(sed -n "s,.*id=virtio/$domid/0 terminal=\([^ ]*\).*,\1,p" "$BACKEND_LOG")
    check "$name: its terminal is $terminal" test -c "$terminal" || give_up "there is a terminal"
    cat "$terminal" >"/tmp/$name.out" &
    xl unpause "$name"
    expect "$name" "%% console /dev/hvc1" 120
}

# ask NAME TERMINAL COMMAND ANSWER: has the guest's shell do something, and waits for its answer.
ask() {
    echo "$3" >"$2"
    check "$1: ${3:0:40}: ${4:0:40}" wait_for 20 grep -qF -- "$4" "/tmp/$1.out"
}

# grows FILE BYTES: true once it is larger than that.
grows() { [ "$(stat -c %s "$1")" -gt "$2" ]; }

daemon_start run
stream console "$BACKEND_LOG"
virtio-console --transport "$TRANSPORT" >>"$BACKEND_LOG" 2>&1 &
BACKEND=$!
console one; one=$terminal
console two; two=$terminal
check "each has a terminal of its own" [ "$one" != "$two" ]

ask one "$one" 'echo the answer of $((6 * 7))' "the answer of 42"
ask two "$two" 'echo the answer of $((7 * 7))' "the answer of 49"
check "no guest sees what the other is told" fails grep -qF "the answer of 49" /tmp/one.out
# Both ways, as much as a terminal takes in one piece: a line has at most 4 KiB.
line=$(head -c 1500 /dev/urandom | hexdump -v -e '1/1 "%02x"')
ask one "$one" "echo $line | sha256sum" "$(echo "$line" | sha256sum | cut -d' ' -f1)"
ask one "$one" "echo $line" "$line"

stty -F "$one" rows 50 cols 132
kill -HUP "$BACKEND"
ask one "$one" 'sleep 0.5; stty size' "50 132"
ask two "$two" 'stty size; echo sized' "sized"
check "the other one's size is as it was" fails grep -qF "50 132" /tmp/two.out

note "before: one of two prints without end"
echo 'while true; do echo and on and on; done' >"$two"
check "two prints" wait_for 20 grep -qF "and on and on" /tmp/two.out
check "xl destroy, in mid-output" xl destroy two
check "the guest is gone" guest_wait_gone two
check "its terminal is gone" fails test -c "$two"
ask one "$one" 'echo still here' "still here"

kill -TERM "$BACKEND"
check "told to stop, it ends, with success" wait "$BACKEND"
ask one "$one" 'echo and still' "and still"
virtio-console --transport "$TRANSPORT" >>"$BACKEND_LOG" 2>&1 &
BACKEND=$!
check "the next one takes the guest over" wait_for 10 grep -qF " taken over id=" "$BACKEND_LOG"
ask one "$one" 'echo and with it' "and with it"
# In mid-output, too.
echo 'yes more | head -n 100000' >"$one"
check "one prints" wait_for 20 grep -qF "more" /tmp/one.out
check "xl destroy, of the last guest" xl destroy one
check "the guest is gone" guest_wait_gone one
check "its terminal is gone" fails test -c "$one"
kill -TERM "$BACKEND"
check "told to stop, it ends, with success" wait "$BACKEND"

check "the daemon stops" daemon_stop
