# First boot: writes files with fsync, notes their sums, reboots. Second boot:
# verifies them and powers off. State is in the file system alone.
if [ ! -e /data/sums ]; then
    mkdir -p /data
    for i in 1 2 3 4 5 6 7 8; do
        dd if=/dev/urandom of=/data/file$i bs=64k count=$((i * 2)) conv=fsync status=none || return 1
    done
    (cd /data && sha256sum file* >sums.new) && sync /data/sums.new && mv /data/sums.new /data/sums && sync /data
    echo "%% wrote $(wc -l </data/sums) files"
    cat /data/sums
    finish reboot
fi
cd /data && sha256sum -c sums && echo "%% verified $(wc -l <sums) files after the reboot"
