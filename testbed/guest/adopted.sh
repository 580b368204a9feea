# Verified I/O on each disk without end. Each round says the longest time between two answers; and each time that the
# size of /dev/vda changes, it is said.
going() {
    bio hammer "/dev/$1" --depth 4 --ops 20 --len 512k --again-after-ms 20 | while read -r words; do
        words=${words##*longest_pause_us=}
        echo "%% $1 round, longest pause us ${words%% *}"
    done
    echo "%% $1 failed"
}
for disk in /sys/block/vd*; do
    going "${disk##*/}" &
done
size=
while true; do
    read -r now </sys/block/vda/size
    [ "$now" = "$size" ] || echo "%% sectors $now"
    size=$now
    sleep 0.5
done
