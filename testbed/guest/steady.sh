# Verified I/O at an easy pace, until somebody ends the guest. Each round says the longest time between two answers.
while words=$(bio hammer /dev/vda --depth 8 --ops 20 --len 512k); do
    words=${words##*longest_pause_us=}
    echo "%% round, longest pause us ${words%% *}"
    sleep 0.2
done
