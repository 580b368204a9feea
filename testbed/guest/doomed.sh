# I/O without end on two disks, and a sign of life that takes neither.
bio hammer /dev/vdb --depth 2 --seconds 100000 --len 4M &
( while sleep 0.2; do echo "%% alive"; done ) &
bio hammer /dev/vda --depth 8 --ops 20 --len 4M || exit 1
echo "%% busy"
bio hammer /dev/vda --depth 8 --seconds 100000 --len 4M
echo "%% the disk is gone"
sleep 100000
