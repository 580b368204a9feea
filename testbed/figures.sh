# about: what requests cost a guest, in one deterministic boot
# time-limit: 600

# figures NAME VCPUS DISKLINE: a guest that runs guest/figures.sh on that disk. Each of its marks comes
# back as `@@ note figure NAME VCPUS <ioreqs so far> <the guest's words>`. It is read from a stream, as
# looking again and again would be instructions of dom0's that take real time.
figures() {
    local line id ioreqs=-
    GUEST_CMDLINE=xvt.script=figures
    case $1 in *-pci) TRANSPORT=pci ;; *) TRANSPORT=mmio ;; esac
    guest_config "$1" 256 "$2" slim "$3"
    check "$1: xl create" guest_create "$1" || return
    id=virtio_disk/$(xl domid "$1")/51712
    mkfifo "/tmp/$1.marks"
    tail -n +1 -f "$GUEST_LOG/guest-$1.log" >"/tmp/$1.marks" &
    while read -r line; do
        case $line in
        *"%% mark "*)
            [ "$1" = pv ] || ioreqs=$(daemon_now "$id" ioreqs)
            note "figure $1 $2 $ioreqs ${line#*%% mark }"
            ;;
        *"%% script figures status"*) break ;;
        esac
    done <"/tmp/$1.marks"
    check "$1: all figures taken" grep -qF "%% script figures status 0" "$GUEST_LOG/guest-$1.log"
    check "$1: the guest is gone" guest_wait_gone "$1"
}

disk=$(image disk 64M)
figures pv 1 "phy:$disk,xvda,w"
cat >/tmp/disks.toml <<EOF
[guests.foreign-pci]
transport = "pci"
[guests.grant-pci]
transport = "pci"
EOF
daemon_start run --config /tmp/disks.toml
figures foreign 1 "$(virtio_disk "$disk" xvda)"
if has_bus; then figures foreign-pci 1 "$(virtio_disk "$disk" xvda)"; fi
granting=$(virtio_disk "$disk" xvda rw grant_usage=1)
guest_config grant 256 1 slim "$granting"
if xl create -n /tmp/grant.cfg >/dev/null 2>&1; then
    figures grant 1 "$granting"
    if has_bus; then figures grant-pci 1 "$granting"; fi
else
    note "left out grant: xl has no grant_usage before Xen 4.19, and this is $(xl info xen_version)"
fi
check "the daemon stops" daemon_stop
