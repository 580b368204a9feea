//! qcow2 images that are damaged, or of a kind that isn't served.
#![cfg(all(feature = "test-utils", feature = "imago", not(miri)))]

mod common;
#[path = "common/host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::*;
use host::*;
use tempfile::TempDir;
use virtio_blk_dev::{Image, ImageFormat, ImagoImage, OpenError};

fn open(path: &Path, read_only: bool) -> Result<ImagoImage, OpenError> {
    ImagoImage::open(path, ImageFormat::Qcow2, read_only)
}

/// Why it can't be opened: the error, and what caused it.
fn told(error: &OpenError) -> String {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source())
        .map(|error| format!("{error}: "))
        .collect()
}

/// What is encrypted, and how, the header says: the rest of it doesn't matter. To have QEMU make such
/// an image takes it as long as deriving a key does, and fails where the clock of the CPU is coarse.
#[test]
fn an_encrypted_image_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.qcow2");
    let fields: [(usize, &[u8]); 8] = [
        (0, b"QFI\xfb"),
        (4, &3u32.to_be_bytes()),          // version
        (20, &16u32.to_be_bytes()),        // cluster_bits
        (24, &(1u64 << 20).to_be_bytes()), // size
        (36, &1u32.to_be_bytes()),         // l1_size
        (56, &1u32.to_be_bytes()),         // refcount_table_clusters
        (96, &4u32.to_be_bytes()),         // refcount_order
        (100, &104u32.to_be_bytes()),      // header_length
    ];
    let mut image = vec![0; 4 << 16];
    for (place, bytes) in fields {
        image[place..place + bytes.len()].copy_from_slice(bytes);
    }
    for (place, cluster) in [(40, 1u64), (48, 2), (2 << 16, 3)] {
        image[place..place + 8].copy_from_slice(&(cluster << 16).to_be_bytes());
    }
    for place in (3 << 16..).step_by(2).take(4) {
        image[place + 1] = 1;
    }
    fs::write(&path, &image).unwrap();
    assert!(open(&path, false).is_ok(), "without encryption it is an image");
    for method in [1, 2] {
        image[35] = method;
        fs::write(&path, &image).unwrap();
        for read_only in [false, true] {
            let error = told(&open(&path, read_only).unwrap_err());
            assert!(error.contains("encrypted"), "{error}");
        }
    }
}

#[test]
fn an_image_whose_tables_count_as_free_is_not_written() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    for order in [0, 4, 6] {
        let options = format!("refcount_bits={}", 1 << order);
        qemu_img(&directory, &format!("create -f qcow2 -o {options} disk.qcow2 4M"));
        qemu_io(&path, "qcow2", "write 0 1M");
        let sound = fs::read(&path).unwrap();
        let u64_at = |place: usize| u64::from_be_bytes(sound[place..place + 8].try_into().unwrap());
        let (l1, reftable) = (u64_at(40), u64_at(48));
        let (l2, refblock) = (u64_at(l1 as usize) & !(1 << 63), u64_at(reftable as usize));
        for (table, what) in [
            (0, "header"),
            (reftable, "refcount table"),
            (refblock, "refcount block"),
            (l1, "L1 table"),
            (l2, "L2 table"),
        ] {
            let mut bytes = sound.clone();
            // The table's cluster has 64 KiB, its refcount two to the power of `order` bits.
            let bit = ((table >> 16) << order) as usize;
            let place = refblock as usize + bit / 8;
            match order {
                0 => bytes[place] &= !(1 << (bit % 8)),
                _ => bytes[place..place + (1 << order) / 8].fill(0),
            }
            assert!(bytes != sound);
            is_refused_until_repaired(&directory, &bytes, what);
        }
        let mut bytes = sound.clone();
        bytes[reftable as usize..][..8].fill(0);
        is_refused_until_repaired(&directory, &bytes, "header");
    }
}

/// Of clusters of 512 bytes, with a snapshot that shares all its data.
#[test]
fn an_image_in_which_a_cluster_has_a_second_use_is_not_written() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    qemu_img(&directory, "create -f qcow2 -o cluster_size=512 disk.qcow2 128K");
    qemu_io(&path, "qcow2", "write 0 40k");
    qemu_img(&directory, "snapshot -c before disk.qcow2");
    // A table of its own, with data of its own.
    qemu_io(&path, "qcow2", "write 0 512");
    let sound = fs::read(&path).unwrap();
    assert!(open(&path, false).is_ok(), "it is sound");
    let u64_at = |place: u64| {
        let place = place as usize;
        u64::from_be_bytes(sound[place..place + 8].try_into().unwrap())
    };
    let offset = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    let (l1, reftable, snapshots) = (u64_at(40), u64_at(48), u64_at(64));
    let (refblock, l2, shared_l2) = (u64_at(reftable), offset(u64_at(l1)), u64_at(l1 + 8));
    let (data, shared_data) = (offset(u64_at(l2)), u64_at(shared_l2));
    let (copied, compressed, end) = (1 << 63, 1 << 62, sound.len() as u64 + 512);
    let tables = [reftable, refblock, l1, l2, snapshots, u64_at(snapshots)];
    let entries = tables.into_iter().flat_map(|table| {
        // Whoever is looked at first, the other one is too much.
        [(l1 + 24, table, "its"), (l2 + 8, table, "its"), (l2 + 8, compressed | table, "its")]
    });
    for (place, entry, finding) in entries.chain([
        (l2 + 8, compressed | 8, "another use for its compressed data"),
        (l2 + 8, data, "another use for its data"),
        (l2 + 8, copied | shared_data, "another use for its data"),
        (l2 + 8, shared_data + 512, "more uses than refcounts for its data"),
        (l2 + 8, copied | end, "a place beyond the end of the file for its data"),
        (l2 + 8, data | 1 << 57, "an invalid entry in an L2 table"),
        (l2 + 8, copied | compressed | data, "an invalid entry in an L2 table"),
        (l1 + 24, end, "a place beyond the end of the file for its L2 table"),
        (l1 + 24, shared_l2, "another use for its L2 table"),
        (l1 + 8, copied | shared_l2, "another use for its L2 table"),
        (reftable + 8, end, "a place beyond the end of the file for its refcount block"),
        (reftable + 8, refblock, "another use for its refcount block"),
        (56, 1 << 32 | 1 << 20, "too many snapshots"),
    ]) {
        let mut bytes = sound.clone();
        bytes[place as usize..place as usize + 8].copy_from_slice(&entry.to_be_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = open(&path, false).map(|_| format!("{entry:#x} at {place:#x}"));
        let error = told(&error.unwrap_err());
        assert!(error.contains("damaged") && error.contains(finding), "{finding}: {error}");
        assert!(open(&path, true).is_ok(), "{finding}: it can be read");
    }
}

/// 16384 L2 tables of 2 MiB, all of them holes: to read them would be to read 32 GiB.
#[test]
fn holes_of_an_image_are_not_read_to_check_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.qcow2");
    let file = fs::File::create(&path).unwrap();
    let (cluster, tables) = (2u64 << 20, 16_384u64);
    file.set_len((4 + tables) * cluster).unwrap();
    let fields: [(u64, &[u8]); 11] = [
        (0, b"QFI\xfb"),
        (4, &3u32.to_be_bytes()),                // version
        (20, &21u32.to_be_bytes()),              // cluster_bits
        (24, &(1u64 << 40).to_be_bytes()),       // size
        (36, &(tables as u32).to_be_bytes()),    // l1_size
        (40, &(3 * cluster).to_be_bytes()),      // l1_table_offset
        (48, &cluster.to_be_bytes()),            // refcount_table_offset
        (56, &1u32.to_be_bytes()),               // refcount_table_clusters
        (100, &104u32.to_be_bytes()),            // header_length
        (cluster, &(2 * cluster).to_be_bytes()), // the refcount block, with refcounts of one bit
        (2 * cluster, &vec![0xff; tables as usize / 8 + 1]),
    ];
    for (place, bytes) in fields {
        file.write_all_at(bytes, place).unwrap();
    }
    let entries = (4..4 + tables).flat_map(|nth| ((1 << 63) | (nth * cluster)).to_be_bytes());
    file.write_all_at(&entries.collect::<Vec<u8>>(), 3 * cluster).unwrap();
    let start = Instant::now();
    let image = open(&path, false).unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(image.capacity(), 1 << 40);
}

fn is_refused_until_repaired(directory: &TempDir, bytes: &[u8], what: &str) {
    let path = directory.path().join("disk.qcow2");
    fs::write(&path, bytes).unwrap();
    let error = told(&open(&path, false).unwrap_err());
    assert!(error.contains("damaged") && error.contains(what), "{what}: {error}");
    assert!(open(&path, true).is_ok(), "it can be read");
    qemu_img(directory, "check -q -r all -f qcow2 disk.qcow2");
    assert!(open(&path, false).is_ok(), "{what}: it was repaired");
}

#[test]
fn a_damaged_image_is_an_error_and_nothing_else() {
    let Some(directory) = directory() else { return };
    qemu_img(&directory, "create -f qcow2 -o cluster_size=512 disk.qcow2 256K");
    let path = directory.path().join("disk.qcow2");
    qemu_io(&path, "qcow2", "write -P 0x5a 10k 40k");
    let sound = fs::read(&path).unwrap();
    let (done, waiter) = mpsc::channel();
    // Of its own, so that one that hangs fails.
    let thread = std::thread::spawn(move || {
        let mut random = Random(0x5eed_0004);
        let (mut opened, mut refused) = (0, 0);
        for nth in 0..400 {
            let mut bytes = sound.clone();
            for _ in 0..=random.below(8) {
                // The header more often than the rest.
                let bound = if nth % 2 == 0 { 112 } else { bytes.len() as u64 };
                let place = random.below(bound) as usize;
                bytes[place] = match random.below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[place] ^ (1 << random.below(8)),
                    _ => random.below(256) as u8,
                };
            }
            bytes.truncate(bytes.len() - random.below(3) as usize * 700);
            fs::write(&path, &bytes).unwrap();
            let Ok(image) = open(&path, nth % 3 == 0) else {
                refused += 1;
                continue;
            };
            opened += 1;
            // It may have become huge.
            let image = Arc::new(image);
            let mut guest = driver(&image);
            let len = image.capacity().min(256 * KIB);
            guest.request(IN, 0, &[], len as usize);
            guest.request(OUT, 3, &[1; 8192], 0);
            let _ = image.write_zeroes(0, len / 512 / 2 * 512, false);
            let _ = image.discard(0, len);
            guest.request(OUT, 9, &[2; 512], 0);
            guest.request(FLUSH, 0, &[], 0);
            guest.request(IN, 0, &[], len as usize);
        }
        done.send((opened, refused)).unwrap();
    });
    match waiter.recv_timeout(Duration::from_secs(120)) {
        Ok((opened, refused)) => assert!(opened > 50 && refused > 50, "{opened} and {refused}"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => thread.join().unwrap(),
    }
}
