//! Raw images around the page cache, and on block devices.
#![cfg(all(feature = "test-utils", not(miri)))]

mod common;
#[path = "common/host.rs"]
mod host;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::*;
use host::*;
use tempfile::TempDir;
use virtio_blk_dev::{Alignment, Image, OpenError, RawImage, RawOptions};

/// Writes and reads in buffers of every alignment and of some sizes, and looks at the file.
fn direct_round_trip(image: RawImage, path: &Path) {
    let image = Arc::new(image);
    assert!(image.is_direct());
    let block = u64::from(image.topology().logical_block_size);
    let mut guest = driver(&image);
    let mut expected = fs::read(path).unwrap();
    for (nth, (skew, len)) in
        [(0, 4 * KIB), (1, 4 * KIB), (2, block), (7, 700 * KIB), (512, 64 * KIB)]
            .into_iter()
            .enumerate()
    {
        guest.free_all();
        let offset = (nth as u64 + 1) * 8 * block;
        let data = vec![0xa0 + nth as u8; len as usize];
        let mut buf = guest.room((len + skew) as usize);
        buf.addr += skew;
        guest.memory_write(&data, buf.addr);
        // In two buffers, of which the second begins anywhere.
        let first = (len / 2 + 1) as u32;
        let bufs = [
            guest.header(OUT, offset / 512),
            Buf { len: first, write: false, ..buf },
            Buf { addr: buf.addr + u64::from(first), len: len as u32 - first, write: false },
        ];
        let status = guest.room(1);
        let answer = guest.serve(&[&bufs[..], &[status]].concat(), 0, 0, status.addr);
        assert_eq!(answer.status, OK, "{len} bytes, {skew} off");
        expected[offset as usize..][..len as usize].copy_from_slice(&data);

        guest.free_all();
        let mut room = guest.room((len + skew) as usize);
        (room.addr, room.len) = (room.addr + skew, len as u32);
        let bufs = [guest.header(IN, offset / 512), room, guest.room(1)];
        let answer = guest.serve(&bufs, room.addr, len as usize, bufs[2].addr);
        assert_eq!(answer.status, OK);
        assert!(answer.data == data, "{len} bytes, {skew} off");
    }
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    image.write_zeroes(64 * block, 3 * block, false).unwrap();
    expected[64 * block as usize..][..3 * block as usize].fill(0);
    drop(guest);
    assert!(fs::read(path).unwrap() == expected);
}

#[test]
fn direct_io_takes_any_buffer() {
    for directory in directories() {
        let path = file(directory.path(), 2 * MIB);
        match RawOptions::new().direct(true).open(&path) {
            Ok(image) => direct_round_trip(image, &path),
            Err(OpenError::Direct { .. } | OpenError::DirectBlocks { .. }) => {
                skip("no direct I/O in sectors here");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn direct_io_on_a_device_of_greater_blocks_keeps_to_them() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 2 * MIB);
    let Some(device) = Loop::new(&path, 4096) else { return };
    let open = |options: RawOptions| options.direct(true).open(&device.0);

    let image = open(RawOptions::new()).unwrap();
    assert!(image.is_block_device());
    assert_eq!(image.topology().logical_block_size, 4096);
    assert_eq!(image.alignment().offset, 4096);
    direct_round_trip(image, &device.0);

    // A driver that doesn't know of blocks may read sectors; it can't write them.
    let image = Arc::new(open(RawOptions::new()).unwrap());
    let mut guest = driver(&image);
    let before = fs::read(&device.0).unwrap();
    let answer = guest.request(IN, 3, &[], 512);
    assert_eq!(answer.status, OK);
    assert!(answer.data == before[3 * 512..4 * 512]);
    assert_eq!(guest.request(OUT, 3, &[7; 512], 0).status, IOERR);
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
    drop((guest, image));
    assert!(fs::read(&device.0).unwrap() == before);

    let error = open(RawOptions::new().logical_block_size(512)).unwrap_err();
    assert!(matches!(error, OpenError::LogicalBlockSize { .. }), "{error}");
}

#[test]
fn direct_io_on_a_file_system_of_greater_blocks_asks_for_a_decision() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 8 * MIB);
    let Some(device) = Loop::new(&path, 4096) else { return };
    if run("mkfs.ext4", [OsStr::new("-qF"), device.0.as_os_str()]).is_none() {
        return skip("mkfs.ext4 is missing");
    }
    let mount_point = TempDir::new().unwrap();
    with_mount(&[device.0.as_os_str(), mount_point.path().as_os_str()], || {
        let path = file(mount_point.path(), 2 * MIB + 512);
        assert_eq!(RawImage::open(&path, false).unwrap().trimmed(), 0);
        let error = RawOptions::new().direct(true).open(&path).unwrap_err();
        assert!(matches!(error, OpenError::DirectBlocks { needed: 4096, logical: 512, .. }));
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()) && message.contains("4096"), "{message}");

        let image = RawOptions::new().direct(true).logical_block_size(4096).open(&path).unwrap();
        assert_eq!((image.capacity(), image.trimmed()), (2 * MIB, 512));
        direct_round_trip(image, &path);

        // The host uses the device.
        let error = RawImage::open(&device.0, false).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        RawImage::open(&device.0, true).unwrap();
    });
}

#[test]
fn direct_io_on_a_file_that_shares_storage_takes_the_sectors_of_its_disk() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk");
    fs::File::create(&path).unwrap().set_len(320 * MIB).unwrap();
    let Some(device) = Loop::new(&path, 512) else { return };
    if run("mkfs.xfs", [OsStr::new("-qf"), device.0.as_os_str()]).is_none() {
        return skip("mkfs.xfs is missing");
    }
    let mount_point = TempDir::new().unwrap();
    with_mount(&[device.0.as_os_str(), mount_point.path().as_os_str()], || {
        let path = file(mount_point.path(), 2 * MIB);
        let copy = mount_point.path().join("copy");
        let reflink = [OsStr::new("--reflink=always"), path.as_os_str(), copy.as_os_str()];
        run("cp", reflink).expect("a copy that shares storage");
        let before = fs::read(&copy).unwrap();
        let image = RawOptions::new().direct(true).open(&path).unwrap();
        assert_eq!((image.topology().logical_block_size, image.alignment().offset), (512, 512));
        direct_round_trip(image, &path);
        assert!(fs::read(&copy).unwrap() == before);
    });
}

#[test]
fn a_block_device_is_a_disk() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), MIB);
    let Some(device) = Loop::new(&path, 512) else { return };
    let image = Arc::new(RawImage::open(&device.0, false).unwrap());
    assert!(image.is_block_device());
    assert_eq!((image.capacity(), image.alignment()), (MIB, Alignment::BYTE));
    let topology = image.topology();
    assert_eq!(topology.logical_block_size, 512);
    assert!(topology.physical_block_size >= 512 && topology.min_io_size >= 512);
    let commands = image.commands();
    assert_eq!((commands.secure_erase, commands.lifetime), (None, false));
    assert!(commands.write_zeroes && commands.write_zeroes_may_unmap);
    let unit = u64::from(commands.discard.unwrap());

    let mut guest = driver(&image);
    assert_eq!(guest.request(OUT, 1, &[9; 512], 0).status, OK);
    assert_eq!(guest.request(OUT, 2048, &[9; 512], 0).status, IOERR);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    let mut expected = noise(MIB);
    expected[512..1024].fill(9);
    assert!(fs::read(&path).unwrap() == expected);

    let full = stored(&path);
    image.discard(64 * unit, 16 * unit).unwrap();
    assert!(stored(&path) < full);
    let full = stored(&path);
    image.write_zeroes(128 * unit, 16 * unit, true).unwrap();
    assert!(stored(&path) < full);
    image.write_zeroes(0, 512, false).unwrap();
    image.flush().unwrap();
    let after = fs::read(&path).unwrap();
    expected[..512].fill(0);
    for start in [64, 128] {
        expected[start * unit as usize..][..16 * unit as usize].fill(0);
    }
    assert!(after == expected);
    assert!(image.discard(MIB - 512, 1024).is_err());

    // Resized, as by lvextend.
    grow(&path, 2 * MIB);
    assert!(run("losetup", [OsStr::new("--set-capacity"), device.0.as_os_str()]).is_some());
    assert_eq!(image.refresh_capacity().unwrap(), 2 * MIB);

    assert!(matches!(RawImage::open(&device.0, false), Err(OpenError::InUse { .. })));
    assert!(matches!(RawImage::open(&device.0, true), Err(OpenError::InUse { .. })));
}

#[test]
fn parts_of_a_devices_blocks_are_zeroed_and_not_discarded() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), MIB);
    let Some(device) = Loop::new(&path, 4096) else { return };
    let image = RawImage::open(&device.0, false).unwrap();
    let mut expected = noise(MIB);
    image.discard(512, 4096).unwrap();
    image.discard(4096 + 512, 8192).unwrap();
    expected[8192..12288].fill(0);
    for unmap in [false, true] {
        let offset = if unmap { 65536 + 512 } else { 32768 + 512 };
        image.write_zeroes(offset, 8192, unmap).unwrap();
        expected[offset as usize..][..8192].fill(0);
    }
    image.flush().unwrap();
    let after = fs::read(&path).unwrap();
    assert!(after[..8192] == expected[..8192]);
    assert!(after[12288..] == expected[12288..]);
}
