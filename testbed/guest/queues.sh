# A thread on each of two CPUs, each of which has a queue of its own: each verifies what the other wrote.
echo "%% cpus $(nproc) queues $(ls /sys/block/vda/mq | wc -l)"
taskset 1 bio fill /dev/vda 1 8M & first=$!
taskset 2 bio fill /dev/vda 2 8M --offset 16M || exit 1
wait $first || exit 1
taskset 2 bio verify /dev/vda 1 8M & first=$!
taskset 1 bio verify /dev/vda 2 8M --offset 16M || exit 1
wait $first || exit 1
set -o pipefail
bio hammer /dev/vda --threads 2 --depth 16 --ops 200 --len 16M | sed 's/^/%% /'
