# about: the sandbox of a guest's process on this kernel and processor: its layers, what works in them and what is refused
# daemon: none
# binary: sandbox-trial

export TRIAL_UID=1000001

# trial LAYERS ACTION…: one try; prints `done`, `refused`, or what else came of it.
trial() {
    local layers=$1 status; shift
    sandbox-trial "$layers" "${KIND:-guest}" "$@" >/tmp/trial.out 2>/tmp/trial.err
    status=$?
    cat /tmp/trial.out /tmp/trial.err >&2
    case $status in
    0) echo "done" ;;
    # 128 + SIGSYS: a filter has ended it.
    10 | 159) echo refused ;;
    *) echo "status $status" ;;
    esac
}
became() { [ "$(trial "$2" $3)" = "$1" ]; }

# works ACTION…: a check that it does, confined.
works() { check "${KIND:-guest}: $* works" became done all "$*"; }

# refused ACTION…: checks that it works unconfined, and is refused by the sandbox.
refused() {
    check "${KIND:-guest}: $*, unconfined: works" became done none "$*"
    check "${KIND:-guest}: $*: refused" became refused all "$*"
}

sandbox-trial all guest report >/tmp/predicted 2>/tmp/report
note "$(cat /tmp/report)"
check "what is predicted is what becomes of it" \
    [ "$(sed 's/^done: //' /tmp/predicted)" = "$(sed 's/^sandbox: //' /tmp/report)" ]
check "no layer is missing or off" fails grep -qE "MISSING|OFF" /tmp/report

image=$(image image 8K)
printf image >/tmp/file
works threads 20
TRIAL_THREADS=10 refused threads 20
works memory
works sockets
works events
works pin
works panic
works ring-read /tmp/file
for KIND in guest sync-queue uring-queue; do
    works image "$image"
    works watch
    works terminal
done
KIND=uring-queue works ring-read /tmp/file
KIND=sync-queue refused ring-read /tmp/file
KIND=log works write
KIND=log refused image "$image"
for KIND in sync-queue uring-queue log; do
    refused threads 1
    refused events
done
unset KIND

ifconfig lo up
sleep 1000 &
neighbour=$!
refused open /etc/passwd
refused open /dev/null
refused open /dev/xen/privcmd
refused open /dev/xen/gntdev
refused open /dev/xen/evtchn
refused open /dev/xen/xenbus
refused open "$image"
refused open "/proc/$neighbour/mem"
refused create /tmp/made
refused walk-up etc/passwd
refused chroot
refused udp 127.0.0.1:9
refused unix /run/xenstored/socket
refused exec /bin/true
refused become-root
refused join-group
refused ptrace "$neighbour"
refused kill "$neighbour"
refused tgkill "$neighbour"
refused unshare
refused mount
refused host-name
refused execute-memory
refused make-executable
refused execute-file /bin/true
refused key
refused ring-setup
refused ring-enable /tmp/file
# The sandbox has 1024, and so have programs from the kernel.
ulimit -n 4096
refused descriptors 3000
for action in ring-descriptor ring-open ring-link ring-buffers ring-table; do
    check "$action of a ring without restrictions: works" became done none "$action /tmp/file unrestricted"
    check "$action of a restricted ring: refused" became refused none "$action /tmp/file"
    check "$action, confined: refused" became refused all "$action /tmp/file"
done
kill $neighbour
