# about: a second device, of the libraries alone: entropy beside a disk, by mapping and by grants
# transport: both
# xen: 4.19
# binary: virtio-rng

# state_is STATE DIR: true if the device whose directory is DIR is in STATE.
state_is() { [ "$(xenstore-read "$2/state")" = "$1" ]; }

# ends_well PID: true if it ends by itself, with status 0.
ends_well() { wait_for 20 fails kill -0 "$1" && wait "$1"; }

# entropy NAME GRANT_USAGE: one guest with an entropy device, from its creation to its end.
entropy() {
    local name=$1 log=/var/log/virtio-rng-$1.log pid dir bytes
    stream "rng-$name" "$log"
    virtio-rng --transport "$TRANSPORT" >>"$log" 2>&1 &
    pid=$!
    GUEST_CMDLINE=xvt.script=entropy
    # The disk is the first device on the bus, and never granted to.
    case $2 in 1) GUEST_BUS=--grants=2 ;; *) GUEST_BUS= ;; esac
    GUEST_CONFIG="virtio = [ \"backend=0,type=virtio,device4,transport=mmio,grant_usage=$2\" ]"
    guest_config "$name" 160 1 slim "$(virtio_disk "$(image "$name" 64M)" xvda)"
    # libxl waits for no backend of such a device, so it is for us to wait before the guest runs.
    check "$name: xl create" guest_create "$name" -p || give_up "a guest is created"
    dir=/local/domain/0/backend/virtio/$(xl domid "$name")/0
    check "$name: its backend stands ready" wait_for 20 state_is 2 "$dir"
    check "$name: xl unpause" xl unpause "$name"
    expect "$name" "%% hwrng virtio_rng"
    kill -TERM "$pid"
    expect "$name" "%% the driver let go and came back" 120
    expect "$name" "%% script entropy status 0"
    check "$name: the guest is gone" guest_wait_gone "$name"
    check "$name: its backend ends with success" ends_well "$pid"
    # Logged when the device is closed; without colours, as it is no terminal.
    bytes=$(sed -n 's/.*the guest got this much entropy.* bytes=\([0-9]*\).*/\1/p' "$log" | tail -n 1)
    note "$name: its backend gave $bytes bytes"
    check "$name: the guest read no less from it" [ "${bytes:-0}" -ge $((3 * 32 * 1024)) ]
}

daemon_start run
idle=$(daemon_holds)
entropy mapping 0
entropy granting 1
check "the daemon served the disks" [ "$(grep -c ' serving id=virtio_disk/' "$DAEMON_LOG")" = 2 ]
check "the daemon left the entropy devices alone" fails grep -q 'id=virtio/' "$DAEMON_LOG"
check "the daemon holds nothing" daemon_holds_only "$idle"
check "the daemon stops" daemon_stop
