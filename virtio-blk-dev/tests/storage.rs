//! Raw images in real file systems: discards and zeroes, sizes that change, disks that are full.
#![cfg(all(feature = "test-utils", not(miri)))]

mod common;
#[path = "common/host.rs"]
mod host;

use std::error::Error as _;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use common::*;
use host::*;
use tempfile::TempDir;
use virtio_blk_dev::{Commands, Image, OpenError, RawImage, RawOptions};

#[test]
fn units_of_a_file_are_those_of_its_file_system() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let block = fs::metadata(&path).unwrap().blksize() as u32;
    let topology = RawImage::open(&path, true).unwrap().topology();
    assert_eq!(topology.logical_block_size, 512);
    assert_eq!(topology.opt_io_size, block);
    assert!(topology.physical_block_size.is_power_of_two());
    assert!(topology.alignment_offset < topology.physical_block_size);

    let stated = RawOptions::new().logical_block_size(8192).open(&path).unwrap().topology();
    assert_eq!((stated.logical_block_size, stated.physical_block_size), (8192, 8192));
    for bytes in [0, 256, 513, 131072] {
        let error = RawOptions::new().logical_block_size(bytes).open(&path).unwrap_err();
        assert!(matches!(error, OpenError::LogicalBlockSize { .. }), "{bytes}: {error}");
    }
}

#[test]
fn a_discard_gives_storage_back_and_touches_nothing_else() {
    for directory in directories() {
        let path = file(directory.path(), MIB);
        let image = RawImage::open(&path, false).unwrap();
        let unit = image.commands().discard.expect("ext4, xfs, btrfs and tmpfs make holes");
        assert!(image.commands().write_zeroes_may_unmap);
        assert!(unit.is_power_of_two());
        let full = stored(&path);
        let mut expected = noise(MIB);

        // Edges in the middle of a block.
        image.discard(64 * KIB + 512, 256 * KIB + 1024).unwrap();
        assert!(stored(&path) <= full - 252 * KIB, "{} of {full}", stored(&path));
        let after = fs::read(&path).unwrap();
        let range = (64 * KIB + 512) as usize..(320 * KIB + 1536) as usize;
        for (nth, byte) in after[range.clone()].iter().enumerate() {
            assert!([0, expected[range.start + nth]].contains(byte));
        }
        assert!(after[..range.start] == expected[..range.start]);
        assert!(after[range.end..] == expected[range.end..]);
        expected[range].copy_from_slice(&after[64 * KIB as usize + 512..320 * KIB as usize + 1536]);

        // Less than a block, nothing, and more than there is.
        image.discard(512 * KIB + 512, 512).unwrap();
        image.discard(0, 0).unwrap();
        for (offset, len) in [(MIB, 512), (MIB - 512, 1024), (512, u64::MAX), (u64::MAX, 1)] {
            let error = image.discard(offset, len).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        }
        let after = fs::read(&path).unwrap();
        expected[512 * KIB as usize + 512..][..512]
            .copy_from_slice(&after[512 * KIB as usize + 512..][..512]);
        assert!(after == expected);
    }
}

#[test]
fn zeroes_are_zeroes_with_and_without_their_storage() {
    for directory in directories() {
        let path = file(directory.path(), MIB);
        let image = RawImage::open(&path, false).unwrap();
        assert!(image.commands().write_zeroes);
        let full = stored(&path);
        let mut expected = noise(MIB);
        let mut zero = |offset: u64, len: u64, unmap| {
            image.write_zeroes(offset, len, unmap).unwrap();
            expected[offset as usize..][..len as usize].fill(0);
            assert!(fs::read(&path).unwrap() == expected, "{len} at {offset}, {unmap}");
        };
        zero(512, 300 * KIB, false);
        assert!(stored(&path) >= full);
        zero(512 * KIB + 512, 256 * KIB, true);
        assert!(stored(&path) <= full - 248 * KIB);
        zero(MIB - 512, 512, true);
        zero(MIB - 1024, 512, false);
        zero(0, 0, false);
        for unmap in [false, true] {
            assert!(image.write_zeroes(MIB - 512, 1024, unmap).is_err());
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), MIB);
    }
}

#[test]
fn what_a_file_cannot_do_is_not_offered() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let image = RawImage::open(&path, false).unwrap();
    assert_eq!(image.commands().secure_erase, None);
    assert!(!image.commands().lifetime);
    assert!(image.secure_erase(0, 4096).is_err() && image.lifetime().is_err());
    drop(image);

    let image = RawImage::open(&path, true).unwrap();
    assert_eq!(image.commands(), Commands::default());
    assert!(image.discard(0, 4096).is_err());
    assert!(image.write_zeroes(0, 4096, true).is_err());
    assert!(image.write_zeroes(0, 4096, false).is_err());
    assert!(fs::read(&path).unwrap() == noise(64 * KIB));
}

#[test]
fn a_sparse_file_stays_sparse() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let mut guest = driver(&image);
    assert!(guest.request(IN, 1 << 20, &[], MIB as usize).data == vec![0; MIB as usize]);
    image.write_zeroes(0, 1 << 30, true).unwrap();
    image.discard(0, 1 << 30).unwrap();
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(stored(&path), 0);
    assert_eq!(guest.request(OUT, 1 << 20, &[1; 4096], 0).status, OK);
    assert!((1..=MIB).contains(&stored(&path)));
}

#[test]
fn a_write_into_a_file_cut_short_grows_it_within_the_capacity() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let mut guest = driver(&image);
    grow(&path, 4 * KIB);
    assert_eq!(guest.request(IN, 16, &[], 512).status, IOERR);
    assert_eq!(guest.request(OUT, 32, &[9; 512], 0).status, OK);
    assert_eq!(guest.request(IN, 16, &[], 512).data, [0; 512]);
    let expected = [&noise(4 * KIB)[..], &vec![0; 12 * KIB as usize], &[9; 512]].concat();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn a_capacity_that_was_read_anew_counts() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let mut guest = driver(&image);
    grow(&path, 128 * KIB + 700);
    assert_eq!(image.capacity(), 64 * KIB, "the operator says when");
    assert!(image.write_zeroes(64 * KIB, 512, false).is_err());
    assert_eq!(image.refresh_capacity().unwrap(), 128 * KIB + 512);
    assert_eq!((image.capacity(), image.trimmed()), (128 * KIB + 512, 188));
    image.write_zeroes(128 * KIB, 512, false).unwrap();

    grow(&path, 4 * KIB);
    assert_eq!(image.refresh_capacity().unwrap(), 4 * KIB);
    // The guest still believes in 64 KiB.
    assert_eq!(guest.request(OUT, 8, &[9; 512], 0).status, IOERR);
    assert_eq!(guest.request(OUT, 7, &[9; 1024], 0).status, IOERR);
    assert_eq!(guest.request(OUT, 7, &[9; 512], 0).status, OK);
    assert_eq!(guest.request(IN, 8, &[], 512).status, IOERR);
    assert_eq!(fs::metadata(&path).unwrap().len(), 4 * KIB);

    grow(&path, 0);
    assert_eq!(image.refresh_capacity().unwrap(), 0);
    assert_eq!(guest.request(IN, 0, &[], 512).status, IOERR);
}

#[test]
fn a_file_that_was_deleted_serves_on() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let mut guest = driver(&image);
    assert!(!image.is_deleted());
    fs::remove_file(&path).unwrap();
    assert!(image.is_deleted());
    assert_eq!(guest.request(OUT, 8, &[9; 512], 0).status, OK);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(guest.request(IN, 8, &[], 512).data, [9; 512]);
    assert_eq!(image.refresh_capacity().unwrap(), 64 * KIB);
}

#[test]
fn a_block_device_that_is_read_only_is_served_to_be_read_alone() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let Some(device) = Loop::read_only(&path) else { return };
    let error = RawImage::open(&device.0, false).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
    let message = error.to_string();
    let source = error.source().expect("what the device says").to_string();
    assert!(source.contains("read-only (`blockdev --getro`)"), "{source}");
    assert!(message.contains("configure the disk as read-only"), "{message}");
    let image = RawImage::open(&device.0, true).unwrap();
    assert!((image.is_read_only(), image.is_deleted()) == (true, false));
}

#[test]
fn a_full_file_system_fails_the_write_that_needs_room_and_no_other() {
    let directory = TempDir::new().unwrap();
    let mount_point = directory.path().as_os_str();
    with_mount(
        &["-t", "tmpfs", "-o", "size=256k", "tmpfs"]
            .map(OsStr::new)
            .iter()
            .copied()
            .chain([mount_point])
            .collect::<Vec<_>>(),
        || {
            let path = directory.path().join("disk.img");
            File::create(&path).unwrap().set_len(MIB).unwrap();
            let image = Arc::new(RawImage::open(&path, false).unwrap());
            let mut guest = driver(&image);
            let data = vec![7; 64 * KIB as usize];
            let statuses: Vec<u8> =
                (0..16).map(|n| guest.request(OUT, n * 128, &data, 0).status).collect();
            assert_eq!(statuses[..3], [OK; 3]);
            assert_eq!(statuses[4..], [IOERR; 12]);
            let error = guest.worker.take_last_error().unwrap();
            assert_eq!(error.source.raw_os_error(), Some(libc::ENOSPC));
            assert!(image.write_zeroes(512 * KIB, 64 * KIB, false).is_err());

            assert_eq!(guest.request(OUT, 0, &[8; 4096], 0).status, OK, "needs no room");
            assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
            assert_eq!(guest.request(IN, 0, &[], 4096).data, [8; 4096]);
            image.discard(64 * KIB, 64 * KIB).unwrap();
            assert_eq!(guest.request(OUT, 1024, &data, 0).status, OK, "there is room again");
        },
    );
}
