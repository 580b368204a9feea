//! Raw images on real file systems and devices: direct I/O, discards and zeroes, sizes that change.
#![cfg(feature = "test-utils")]

mod common;
#[path = "common/host.rs"]
mod host;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use host::{Loop, run, skip, with_mount};
use tempfile::TempDir;
use virtio_blk_dev::{
    Alignment, BlockConfig, Commands, Image, OpenError, RawImage, RawOptions, SyncEngine,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Directories on the file systems at hand: that of temporary files, and one in memory.
fn directories() -> Vec<TempDir> {
    let mut directories = vec![TempDir::new().unwrap()];
    directories.extend(TempDir::new_in("/dev/shm"));
    directories
}

/// A file of `len` bytes, none of which is zero.
fn file(directory: &Path, len: u64) -> PathBuf {
    let path = directory.join("disk.img");
    fs::write(&path, noise(len)).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    path
}

fn noise(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n / 13 % 255 + 1) as u8).collect()
}

fn grow(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Bytes of storage.
fn stored(path: &Path) -> u64 {
    File::open(path).unwrap().sync_all().unwrap();
    fs::metadata(path).unwrap().blocks() * 512
}

fn driver(image: &Arc<RawImage>) -> Guest<SyncEngine<RawImage>> {
    let config = BlockConfig {
        logical_block_size: image.topology().logical_block_size,
        ..BlockConfig::default()
    };
    Guest::new(image.capacity(), &config, F_ALL, SyncEngine::new(Arc::clone(image)))
}

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
    fs::remove_file(&path).unwrap();
    assert_eq!(guest.request(OUT, 8, &[9; 512], 0).status, OK);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(guest.request(IN, 8, &[], 512).data, [9; 512]);
    assert_eq!(image.refresh_capacity().unwrap(), 64 * KIB);
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
