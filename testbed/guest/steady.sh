# Verified I/O at an easy pace, until somebody ends the guest.
while bio hammer /dev/vda --depth 8 --ops 20 --len 512k; do
    echo "%% round"
    sleep 0.2
done
