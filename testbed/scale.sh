# about: what requests cost guests that are busy at once, in one deterministic boot
# memory: 4096
# dom0-memory: 1024
# time-limit: 1800

# What is measured: 4 KiB reads of 1, 4 or 10 guests, each from 1 or 4 disks, one or 32 of each disk in flight.
# As many requests in each cell, whoever makes them; none lies beside another, so the guest's kernel merges none.
requests_1=2560 requests_32=20480
# Disks of a guest by each mapping, and MiB of its memory.
disks=4 memory=64
mappings="foreign grant"
[ "$(xl info xen_minor)" -ge 19 ] || {
    note "left out grant: xl has no grant_usage before Xen 4.19, and this is $(xl info xen_version)"
    mappings=foreign
}

# filled NAME: an image of 2 MiB that has no holes, which cost less to read.
filled() {
    local path
    path=$(image "$1" 0) && dd if=/dev/zero of="$path" bs=1M count=2 2>/dev/null && echo "$path"
}

# create TRANSPORT NUMBER: a guest that waits for words.
create() {
    local name=$1-$2 mapping options disk letters=abcdefgh granting=0
    set --
    for mapping in $mappings; do
        options=
        [ "$mapping" = foreign ] || options=grant_usage=1 granting=$disks
        for disk in $(seq $disks); do
            set -- "$@" "$(virtio_disk "$(filled "$name")" "xvd$(echo $letters | cut -c $(($# + 1)))" rw $options)"
        done
    done
    GUEST_CMDLINE=xvt.script=scale
    guest_config "$name" $memory 1 slim "$@"
    check "xl create $name" guest_create "$name" || give_up "a guest is created"
    expect "$name" "%% scale up, $disks foreign, $granting granting" || give_up "a guest is up"
    # Where it reads its console.
    xenstore-read "/local/domain/$(xl domid "$name")/console/tty" >"/tmp/$name.tty"
    created=$((created + $#))
}

# tell TRANSPORT GUESTS WORDS: a line to each guest's console.
tell() {
    local guest ttys=
    for guest in $(seq "$2"); do ttys="$ttys $(cat "/tmp/$1-$guest.tty")"; done
    # One after the other without anything else between: some thousand instructions each.
    for guest in $ttys; do echo "$3" >"$guest"; done
}

# all_wait TRANSPORT GUESTS: true once each guest waits for the word to begin.
all_wait() {
    local guest
    for guest in $(seq "$2"); do
        [ "$(guest_said "$1-$guest" "bio load: ready")" -gt "$(guest_said "$1-$guest" "%% load ")" ] || return 1
    done
}
# all_done TRANSPORT GUESTS: true once none waits or reads any more.
all_done() {
    local guest
    for guest in $(seq "$2"); do
        [ "$(guest_said "$1-$guest" "bio load: ready")" -eq "$(guest_said "$1-$guest" "%% load ")" ] || return 1
    done
}

# ioreqs_now: what the daemon has answered for all disks, which are $created. Its log begins anew, as it is long.
ioreqs_now() {
    : >"$DAEMON_LOG"
    kill -USR1 "$DAEMON_PID"
    sleep 1
    wait_for 10 all_reported
    sed -n 's/.* disk totals .*[ {]ioreqs[=:] *\([0-9]*\).*/\1/p' "$DAEMON_LOG" | awk '{ sum += $1 } END { print sum + 0 }'
}
all_reported() { [ "$(grep -cF " disk totals " "$DAEMON_LOG")" -ge "$created" ]; }

# switches: dom0's, so far.
switches() { sed -n 's/^ctxt //p' /proc/stat; }

# cell TRANSPORT MAPPING GUESTS DISKS DEPTH: all begin together, and what came of it is one line: requests of all,
# nanoseconds of the guest that took longest, interrupts, ioreqs, and context switches of dom0.
cell() {
    local cell="transport=$1 mapping=$2 guests=$3 disks=$4 depth=$5" count ioreqs switches guest
    eval "count=\$((requests_$5 / ($3 * $4)))"
    tell "$1" "$3" "$2 $4 $5 $count"
    sleep 2
    wait_for 60 all_wait "$1" "$3" || give_up "$cell: all guests are ready"
    ioreqs=$(ioreqs_now)
    # All is quiet now, and nobody looks at logs until the guests have done.
    sleep 3
    switches=$(switches)
    tell "$1" "$3" begin
    sleep 5
    switches=$(($(switches) - switches))
    wait_for 60 all_done "$1" "$3" || give_up "$cell: all guests have done"
    ioreqs=$(($(ioreqs_now) - ioreqs))
    note "scale $cell $(for guest in $(seq "$3"); do
        grep -F "%% load " "$GUEST_LOG/guest-$1-$guest.log" | tail -n 1
    done | tr -d '\r' | tr ' ' '\n' | awk -F= '
        $1 == "count" { count += $2 }
        $1 == "interrupts" { interrupts += $2 }
        $1 == "ns" && $2 > ns { ns = $2 }
        END { printf "count=%d ns=%d interrupts=%d", count, ns, interrupts }
    ') ioreqs=$ioreqs switches=$switches"
}

# scale TRANSPORT: guests come as they are needed, so that none is there who isn't busy.
scale() {
    local TRANSPORT=$1 guests mapping busy depth guest
    created=0
    for guests in 1 4 10; do
        while [ "$created" -lt $((guests * disks * $(echo $mappings | wc -w))) ]; do
            create "$1" $((created / (disks * $(echo $mappings | wc -w)) + 1))
        done
        for mapping in $mappings; do
            for busy in 1 $disks; do
                for depth in 1 32; do
                    cell "$1" "$mapping" $guests $busy $depth
                done
            done
        done
    done
    tell "$1" 10 end
    for guest in $(seq 10); do
        check "$1-$guest is gone" guest_wait_gone "$1-$guest"
    done
    rm -f "$IMAGES"/*.img
}

for guest in $(seq 10); do
    printf '[guests.pci-%s]\ntransport = "pci"\n' "$guest"
done >/tmp/disks.toml
# Not streamed: it is asked for its totals again and again.
: >"$DAEMON_LOG"
daemon_start run --config /tmp/disks.toml
scale mmio
if has_bus; then scale pci; fi
check "the daemon stops" daemon_stop
