# I/O without end, until somebody ends the guest: says so once it is in full swing.
bio hammer /dev/vda --depth 8 --ops 20 --len 4M || exit 1
echo "%% busy"
bio hammer /dev/vda --depth 8 --seconds 100000 --len 4M
