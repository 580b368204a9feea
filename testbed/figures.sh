# about: what requests cost a guest, in one deterministic boot
# time-limit: 600

# figures NAME VCPUS DISKLINE [DEVICE-ID]: a guest that runs guest/figures.sh on that disk. Each of its
# marks comes back as `@@ note figure NAME VCPUS <ioreqs so far> <the guest's words>`.
figures() {
    local words ioreqs=- log=$GUEST_LOG/guest-$1.log seen=0
    GUEST_CMDLINE=xvt.script=figures
    guest_config "$1" 256 "$2" slim "$3"
    check "$1: xl create" guest_create "$1" || return
    local id=virtio_disk/$(xl domid "$1")/51712
    while ! guest_gone "$1"; do
        words=$(grep -F '%% mark' "$log" | sed -n "$((seen + 1))p")
        [ -n "$words" ] || { sleep 0.1; continue; }
        seen=$((seen + 1))
        if xenstore-exists "/local/domain/0/backend/$id" 2>/dev/null; then
            ioreqs=$(daemon_now "$id" ioreqs)
        fi
        note "figure $1 $2 $ioreqs ${words#*%% mark }"
    done
    check "$1: all figures taken" guest_said "$1" "%% script figures status 0"
}

disk=$(image disk 64M)
figures pv 1 "phy:$disk,xvda,w"
daemon_start run
figures foreign 1 "$(virtio_disk "$disk" xvda)"
figures grant 1 "$(virtio_disk "$disk" xvda rw grant_usage=1)"
check "the daemon stops" daemon_stop
