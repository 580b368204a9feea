# The kernel dies with requests in flight.
bio hammer /dev/vda --depth 8 --ops 20 --len 4M || exit 1
bio hammer /dev/vda --depth 8 --seconds 100000 --len 4M &
sleep 0.05
echo "%% crashing"
echo c >/proc/sysrq-trigger
