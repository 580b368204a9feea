//! Images that consist of several files.

use std::fs;

use virtio_blk_dev::ImageFormat;
use xen_virtio_blk::{settings::DiskSettings, storage::Storage};

use crate::{
    channel::{Answer, Request},
    host::{directory, qemu_img, qemu_reads},
    pattern::{DISK_LEN, QUEUES, original, served},
    process::{Process, wait_closed},
};

pub(crate) fn qcow2() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    fs::write(directory.path().join("base.img"), original(0, DISK_LEN as usize / 512)).unwrap();
    qemu_img(&directory, "create -q -f qcow2 -b base.img -F raw disk.qcow2");
    let format = ImageFormat::Qcow2;
    let settings = DiskSettings { format, queues: QUEUES, ..DiskSettings::default() };
    let mut process = Process::start(0);
    let files = Storage::files(&path, false, &settings).unwrap();
    assert_eq!(process.attach(&settings, files), DISK_LEN);
    process.does(&Request::Serve);
    assert_eq!(process.ask(&Request::Refresh, &[]), Answer::Capacity(DISK_LEN));
    process.does(&Request::Detach);
    process.end();
    wait_closed(&path);
    qemu_img(&directory, "check -q -f qcow2 disk.qcow2");
    assert!(qemu_reads(&directory, &path) == served());
}

pub(crate) fn vmdk() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.vmdk");
    qemu_img(&directory, "create -q -f vmdk -o subformat=monolithicFlat disk.vmdk 1M");
    fs::write(directory.path().join("disk-flat.vmdk"), original(0, DISK_LEN as usize / 512))
        .unwrap();
    let format = ImageFormat::Vmdk;
    let settings = DiskSettings { format, queues: QUEUES, ..DiskSettings::default() };
    let mut process = Process::start(0);
    process.attach(&settings, Storage::files(&path, true, &settings).unwrap());
    process.does(&Request::Serve);
    process.does(&Request::Detach);
    process.end();
}
