# The kernel suspends all devices and resumes them, which its own test of suspending does without leaving
# the machine: the driver resets its device, and sets it up again.
echo 0 >/sys/module/suspend/parameters/pm_test_delay || exit 1
echo devices >/sys/power/pm_test || exit 1
bio fill /dev/vda 1 1M || exit 1
for round in 1 2 3; do
    echo freeze >/sys/power/state || exit 1
    echo 3 >/proc/sys/vm/drop_caches
    bio verify /dev/vda $round 1M || exit 1
    bio fill /dev/vda $((round + 1)) 1M || exit 1
    echo "%% round $round"
done
complaints=$(dmesg | grep -i -c -e 'I/O error' -e 'failed to \(suspend\|resume\)')
echo "%% complaints $complaints"
[ "$complaints" = 0 ]
