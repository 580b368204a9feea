# Verified I/O on three disks, of which /dev/vdb's storage stops answering. Then /dev/vdb is reset, with requests in
# flight: as by a driver that gives it up, since Linux' own would wait for them first. The write to the register is
# answered when the disk has let go, and its vCPU waits as long: it is the second one, and all else is on the first.
taskset -p 1 $$ >/dev/null
rounds=/tmp/rounds
( while bio hammer /dev/vdb --depth 4 --ops 20 --len 512k >/dev/null; do echo; sleep 0.1; done ) >$rounds &
# going DEVICE: its rounds, each with the longest time between two answers. No process ends meanwhile, nor is a device
# closed: Linux waits for all of its processors then.
going() {
    bio hammer "/dev/$1" --depth 4 --ops 20 --len 512k --again-after-ms 200 | while read -r words; do
        words=${words##*longest_pause_us=}
        echo "%% $1 round, longest pause us ${words%% *}"
    done
    echo "%% $1 failed"
}
going vda &
going vdc &
before=-1
until now=$(wc -l <$rounds) && [ "$now" = "$before" ]; do
    before=$now
    sleep 2
done
echo "%% vdb is stuck after $now rounds"
sleep 3
# The register Status of the second device: in its window, or device_status in its BAR, of 8 bits.
pci=/sys/bus/pci/devices/0000:00:02.0/resource
if [ -e $pci ]; then
    read -r bar rest <$pci
    status="$((bar + 0x14)) 8"
else
    status="0x2000270 32"
fi
echo "%% resetting vdb"
taskset 2 devmem $status 0
echo "%% vdb is reset"
sleep 100000
