# A disk that was used and then rests, until somebody ends the guest.
bio fill /dev/vda 3 1M && bio verify /dev/vda 3 1M || exit 1
echo "%% idle"
sleep 100000
