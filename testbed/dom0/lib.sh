# The verbs of a case. A case is sourced after this file and runs in dom0.
#
# What decides: `@@ ok …` and `@@ not ok …` lines, and reaching the case's end.

# The console, whatever the output of a verb is redirected to.
exec 3>&1
GUEST_LOG=/var/log/xen/console
DAEMON_LOG=/var/log/xen-virtio-blk.log
# mmio or pci: by what guests reach their devices.
TRANSPORT=$(cat /testbed/transport 2>/dev/null || echo mmio)

# note TEXT…: a line of data for the reader (or for xtask) on the console.
note() { echo "@@ note $*" >&3; }

# check WHAT COMMAND…: one check of the case; its output is shown if it fails.
check() {
    local what=$1; shift
    if "$@" >/tmp/check.out 2>&1; then
        echo "@@ ok $what" >&3
    else
        echo "@@ not ok $what (status $?: $*)" >&3
        tail -n 20 /tmp/check.out | sed 's/^/   /' >&3
        return 1
    fi
}

# fails COMMAND…: true if COMMAND fails (for `check`).
fails() { ! "$@"; }

# fail WHAT: a check that did not hold; the case goes on.
fail() { echo "@@ not ok $*" >&3; }

# give_up WHAT: a check that did not hold and without which the rest means nothing.
give_up() { fail "$*"; show_state; sync; sleep 2; poweroff -f; sleep 60; }

# wait_for SECONDS COMMAND…: true as soon as COMMAND is. Seconds are dom0's own,
# which the deterministic mode skips while everybody sleeps.
wait_for() {
    local left=$(($1 * 5)); shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1)); [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

# uptime_ms: dom0's clock in milliseconds.
uptime_ms() {
    local seconds
    read -r seconds _ </proc/uptime
    echo $((${seconds%.*} * 1000 + 1${seconds#*.}0 - 1000))
}

# sum FILE…: the sha256 of what they hold together.
sum() { cat "$@" | sha256sum | cut -d' ' -f1; }

# show_state: what dom0 knows, for the reader of a failure.
show_state() {
    xl list 2>&1 | sed 's/^/   /'
    xenstore-ls -f /local/domain/0/backend 2>/dev/null | sed 's/^/   /'
    tail -n 8 "$DAEMON_LOG" 2>/dev/null | sed 's/^/   /'
    dmesg | tail -n 25 | sed 's/^/dom0| /'
}

# --- images ---------------------------------------------------------------

# Where images are: dom0's memory.
IMAGES=/dev/shm

# unused_image NAME: makes an empty file that no image has been yet, and prints its path.
unused_image() {
    local path=$IMAGES/$1.img number=1
    while [ -e "$path" ]; do
        number=$((number + 1)) path=$IMAGES/$1-$number.img
    done
    : >"$path" && echo "$path"
}

# image NAME SIZE: a new empty (sparse) image; prints its path.
image() {
    local path
    path=$(unused_image "$1") && truncate -s "$2" "$path" && echo "$path"
}

# host_disk NAME: the block device of the case's `# disk: NAME …`.
host_disk() {
    local serial
    for serial in /sys/block/vd*/serial; do
        if [ "$(cat "$serial")" = "$1" ]; then
            serial=${serial#/sys/block/}
            echo "/dev/${serial%/serial}"
            return 0
        fi
    done
    echo "the host gave no disk named $1" >&2
    return 1
}

# image_from NAME: a new image with the content of the host's disk NAME; prints its path.
image_from() {
    local disk path
    disk=$(host_disk "$1") && path=$(unused_image "$1") && cp "$disk" "$path" && echo "$path"
}

# virtio_disk PATH VDEV [ro|rw] [OPTION,…]: the disk line of a virtio-mmio disk.
virtio_disk() {
    echo "$1,raw,$2,${3:-rw},backendtype=standalone,specification=virtio${4:+,$4}"
}

# --- the daemon -----------------------------------------------------------

# daemon_start [ARG…]: starts xen-virtio-blk; its log is streamed as `daemon| …`.
daemon_start() {
    [ -e "$DAEMON_LOG" ] || stream daemon "$DAEMON_LOG"
    [ "$TRANSPORT" = mmio ] || set -- "$@" --transport "$TRANSPORT"
    xen-virtio-blk "$@" >>"$DAEMON_LOG" 2>&1 &
    DAEMON_PID=$!
    sleep 0.5
    kill -0 "$DAEMON_PID" 2>/dev/null || fail "the daemon stays up"
}

# daemon_stop: SIGTERM; succeeds if the daemon ends by itself with status 0 within 20 s.
daemon_stop() {
    kill -TERM "$DAEMON_PID" || return 1
    if ! wait_for 20 fails kill -0 "$DAEMON_PID"; then
        kill -KILL "$DAEMON_PID"
        return 1
    fi
    wait "$DAEMON_PID"
}

# daemon_says TEXT [SECONDS]: true once the daemon's log holds TEXT.
daemon_says() { wait_for "${2:-30}" grep -qF -- "$1" "$DAEMON_LOG"; }

# daemon_total DEVICE KEY: a number of the device's last `disk totals`, e.g.
# `daemon_total virtio_disk/1/51712 requests`.
daemon_total() {
    grep -F "disk totals id=$1 " "$DAEMON_LOG" | tail -n 1 | sed -n "s/.*[ {]$2[=:] *\([0-9]*\).*/\1/p"
}

# daemon_now DEVICE KEY: the same number as it is now: the daemon is asked for its totals.
daemon_now() {
    local lines=$(grep -cF "disk totals id=$1 " "$DAEMON_LOG")
    kill -USR1 "$DAEMON_PID"
    wait_for 5 daemon_reported "$1" "$lines"
    daemon_total "$@"
}
daemon_reported() { [ "$(grep -cF "disk totals id=$1 " "$DAEMON_LOG")" -gt "$2" ]; }

# processes: the daemon and the processes of guests.
processes() { pidof xen-virtio-blk; }

# guest_process NAME [SHARING]: the process that serves the guest's disks, of one SHARING if it has both.
guest_process() {
    local pid key="$(xl domid "$1")-${2:-}"
    for pid in $(processes); do
        case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in *" --guest-process $key"*) echo "$pid" ;; esac
    done
}

# daemon_holds: what the daemon and the processes of guests hold, one line: how many they are, descriptors, threads
# (without the kernel's own for io_uring, which come and go), mappings of Xen's devices, event channels in the
# kernel (one interrupt each).
daemon_holds() {
    local pid pids=$(processes) fds=0 threads=0 mappings=0
    for pid in $pids; do
        fds=$((fds + $(ls "/proc/$pid/fd" 2>/dev/null | wc -l)))
        threads=$((threads + $(cat "/proc/$pid/task"/*/comm 2>/dev/null | grep -vc '^iou-')))
        mappings=$((mappings + $(grep -c /dev/xen/ "/proc/$pid/maps" 2>/dev/null)))
    done
    echo "processes=$(echo $pids | wc -w) fds=$fds threads=$threads mappings=$mappings" \
        "channels=$(grep -c evtchn:xen-virtio-blk /proc/interrupts)"
}

# daemon_holds_only HOLDINGS: true once it holds just that, as daemon_holds printed it.
daemon_holds_only() {
    wait_for 5 holds_equal "$1" || { echo "expected $1, holds $(daemon_holds)"; return 1; }
}
holds_equal() { [ "$(daemon_holds)" = "$1" ]; }

# --- guests ---------------------------------------------------------------

# guest_config NAME MEMORY VCPUS KERNEL DISKLINE…: writes /tmp/NAME.cfg.
# KERNEL is slim (initramfs only), stock (Debian's, root on /dev/vda), or u-boot (the firmware, which
# boots /boot/Image and /boot/initrd of the first disk's ext4).
# On a PCI bus it gets the device tree for that, in which the disks with grant_usage=1 are granted to; GUEST_BUS are
# other options of that tree.
# GUEST_CMDLINE is added to the guest's kernel command line, GUEST_ON_REBOOT
# (destroy) says what a reboot does, GUEST_CONFIG is added to the file verbatim.
guest_config() {
    local name=$1 memory=$2 vcpus=$3 kernel=$4 disks= line number=0 grants=
    shift 4
    for line in "$@"; do
        disks="$disks\"$line\", " number=$((number + 1))
        case $line in *grant_usage=1*) grants=$grants,$number ;; esac
    done
    grants=${grants:+--grants=${grants#,}}
    {
        echo "name = \"$name\""
        echo "memory = $memory"
        echo "vcpus = $vcpus"
        case $kernel in
        slim)
            echo 'kernel = "/guest/slim/Image"'
            echo 'ramdisk = "/guest/slim/initrd"'
            echo "extra = \"console=hvc0 panic=-1 loglevel=6 ${GUEST_CMDLINE:-}\""
            ;;
        u-boot)
            echo 'kernel = "/guest/u-boot/u-boot.bin"'
            echo "extra = \"console=hvc0 panic=-1 loglevel=6 ${GUEST_CMDLINE:-}\""
            ;;
        stock)
            echo 'kernel = "/guest/stock/vmlinuz"'
            echo 'ramdisk = "/guest/stock/initrd"'
            echo "extra = \"console=hvc0 panic=-1 loglevel=6 root=/dev/vda rw ${GUEST_CMDLINE:-}\""
            ;;
        esac
        echo 'on_poweroff = "destroy"'
        echo 'on_crash = "destroy"'
        echo "on_reboot = \"${GUEST_ON_REBOOT:-destroy}\""
        [ -z "$disks" ] || echo "disk = [ $disks ]"
        [ "$TRANSPORT" = mmio ] || xen-virtio-blk device-tree ${GUEST_BUS:-$grants} 2>&1 >"/tmp/$name.dtb" | sed "s|/etc/xen/pci.dtb|/tmp/$name.dtb|"
        [ -z "${GUEST_CONFIG:-}" ] || echo "$GUEST_CONFIG"
    } >"/tmp/$name.cfg"
}

# has_bus: whether xl can give a guest the interrupts of a PCI bus; else a note says what is left out.
has_bus() {
    [ "$(xl info xen_minor)" -ge 20 ] && return
    note "left out pci: xl has no nr_spis before Xen 4.20, and this is $(xl info xen_version)"
    return 1
}

# guest_create NAME [XL-OPTION…]: `xl create`, its console streamed as `NAME| …`; xl's
# own words are in /tmp/NAME.xl and shown if it fails.
guest_create() {
    local name=$1; shift
    rm -f "$GUEST_LOG/guest-$name.log"
    stream "$name" "$GUEST_LOG/guest-$name.log"
    if ! xl create "$@" "/tmp/$name.cfg" >"/tmp/$name.xl" 2>&1; then
        sed "s/^/xl-$name| /" "/tmp/$name.xl"
        return 1
    fi
}

# guest_refused NAME TEXT: checks that `xl create` fails at once, and that the device which its
# words name has an error node that holds TEXT. libxl removes the backend's directory and all in
# it; xenbus's error directory stays.
guest_refused() {
    local start=$(uptime_ms) path
    check "$1: xl create fails" fails guest_create "$1" || { xl destroy "$1"; return 1; }
    sed "s/^/xl-$1| /" "/tmp/$1.xl"
    check "$1: within 5 s, not after libxl's time-out" [ $(($(uptime_ms) - start)) -lt 5000 ]
    path=$(grep -o '/local/domain/0/backend/virtio[a-z_]*/[0-9]*/[0-9]*' "/tmp/$1.xl" | head -n 1)
    check "$1: xl names the device: $path" [ -n "$path" ]
    error_holds "$1" "$(error_dir "$path")" "$2"
}

# error_dir PATH: where the error of the device at the backend path PATH outlives it.
error_dir() { echo "/local/domain/0/error/${1#/local/domain/0/}"; }

# error_holds WHO DIR TEXT: a check that the node DIR/error holds TEXT.
error_holds() {
    note "$1: $2/error = $(xenstore-read "$2/error" 2>&1)"
    check "$1: it says \"$3\"" sh -c 'xenstore-read "$0" | grep -qF -- "$1"' "$2/error" "$3"
}

# guest_gone NAME: true if no such domain exists.
guest_gone() { ! xl domid "$1" >/dev/null 2>&1; }

# guest_wait_gone NAME [SECONDS]: true once the domain is gone.
guest_wait_gone() {
    wait_for "${2:-120}" guest_gone "$1" || return 1
    sleep 1.5
}

# guest_says NAME TEXT [SECONDS]: true once the guest's console holds TEXT.
guest_says() { wait_for "${3:-60}" grep -qF -- "$2" "$GUEST_LOG/guest-$1.log"; }

# guest_said NAME TEXT: how many lines of the guest's console hold TEXT.
guest_said() { grep -cF -- "$2" "$GUEST_LOG/guest-$1.log"; }

# expect NAME TEXT [SECONDS]: a check that the guest's console comes to hold TEXT.
expect() { check "$1 says: $2" guest_says "$@"; }

# --- streams --------------------------------------------------------------

# stream PREFIX FILE: copies FILE to the console as it grows, each line with the prefix.
stream() {
    [ -e "$2" ] || : >"$2"
    tail -n +1 -f "$2" 2>/dev/null | sed "s/^/$1| /" >&3 &
}

# stop_streams: the last lines out, then no more streams.
stop_streams() {
    sleep 2
    killall tail 2>/dev/null
    true
}
