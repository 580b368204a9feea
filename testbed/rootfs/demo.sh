# First boot: makes a file system on the second disk, writes files with fsync to both, notes their
# sums, reboots. Second boot: verifies them. State is on the disks alone.
write() { # DIRECTORY COUNT
    mkdir -p "$1"
    for i in $(seq "$2"); do
        dd if=/dev/urandom of="$1/file$i" bs=64k count=$((i * 4)) conv=fsync status=none || return 1
    done
    (cd "$1" && sha256sum file* >sums && sync sums) && sync "$1"
}
verify() { (cd "$1" && sha256sum -c sums); }

mkdir -p /data-disk
if [ ! -e /data/sums ]; then
    mkfs.ext4 -q /dev/vdb && mount /dev/vdb /data-disk || return 1
    write /data-disk 4 && write /data 8 || return 1
    echo "%% wrote $(wc -l </data/sums) files on / and $(wc -l </data-disk/sums) on /data-disk, with fsync"
    umount /data-disk
    echo "%% kernel $(uname -r)"
    echo "%% rebooting"
    finish reboot
fi
mount /dev/vdb /data-disk && verify /data && verify /data-disk || return 1
echo "%% verified $(wc -l </data/sums) files on / and $(wc -l </data-disk/sums) on /data-disk after the reboot"
umount /data-disk
