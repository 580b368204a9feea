//! qcow2 and VMDK images, held against QEMU's tools. Without qemu-utils, nothing is checked.
#![cfg(all(feature = "test-utils", feature = "imago", not(miri)))]

mod common;
#[path = "common/host.rs"]
mod host;

use std::error::Error as _;
use std::fs;
use std::iter::successors;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use host::*;
use tempfile::TempDir;
use virtio_blk_dev::{Commands, Image, ImageFormat, ImagoImage, OpenError, RawImage};

fn open(path: &Path, read_only: bool) -> Result<ImagoImage, OpenError> {
    open_as(path, ImageFormat::Qcow2, read_only)
}

/// The tests run QEMU's tools: a child that is about to be one still has every descriptor of this
/// process, and with it the lock of an image that was closed here meanwhile.
fn open_as(path: &Path, format: ImageFormat, read_only: bool) -> Result<ImagoImage, OpenError> {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match ImagoImage::open(path, format, read_only) {
            Err(OpenError::InUse { .. }) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

fn refusal(path: &Path, format: ImageFormat, read_only: bool) -> OpenError {
    let error = open_as(path, format, read_only).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

/// What a guest reads of the whole disk.
fn contents_of(image: &Arc<ImagoImage>) -> Vec<u8> {
    let mut guest = driver(image);
    let mut all = Vec::new();
    while (all.len() as u64) < image.capacity() {
        let len = (image.capacity() - all.len() as u64).min(MIB);
        let answer = guest.request(IN, all.len() as u64 / 512, &[], len as usize);
        assert_eq!(answer.status, OK);
        all.extend(answer.data);
    }
    all
}

/// A few requests of every kind, at random, and what they leave of `expected`.
fn scribble(image: &Arc<ImagoImage>, expected: &mut [u8], random: &mut Random) {
    let mut guest = driver(image);
    let sectors = expected.len() as u64 / 512;
    for nth in 0..60u8 {
        let sector = random.below(sectors);
        let count = (random.below(600) + 1).min(sectors - sector);
        let range = sector as usize * 512..(sector + count) as usize * 512;
        let (offset, len) = (sector * 512, count * 512);
        match random.below(6) {
            0 => image.write_zeroes(offset, len, true).unwrap(),
            1 => image.write_zeroes(offset, len, false).unwrap(),
            2 => {
                if image.commands().discard.is_some() {
                    image.discard(offset, len).unwrap();
                }
                let answer = guest.request(IN, sector, &[], len as usize);
                for (old, new) in expected[range.clone()].iter().zip(&answer.data) {
                    assert!(new == old || *new == 0, "other than old or zero");
                }
                expected[range].copy_from_slice(&answer.data);
                continue;
            }
            _ => {
                let data = vec![nth + 1; len as usize];
                assert_eq!(guest.request(OUT, sector, &data, 0).status, OK);
                expected[range].fill(nth + 1);
                continue;
            }
        }
        expected[range].fill(0);
    }
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
}

#[test]
fn what_a_guest_writes_into_qcow2_is_what_qemu_reads() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    let mut random = Random(0x5eed_0001);
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=512,refcount_bits=1",
        "refcount_bits=64,cluster_size=2M",
        "lazy_refcounts=on",
    ] {
        qemu_img(&directory, &format!("create -f qcow2 -o {options} disk.qcow2 4M"));
        let image = Arc::new(open(&path, false).unwrap());
        assert_eq!((image.capacity(), image.is_read_only()), (4 * MIB, false));
        assert!(image.commands().write_zeroes);
        assert_eq!(image.commands().discard.is_some(), options != "compat=0.10");
        let mut expected = vec![0; 4 * MIB as usize];
        scribble(&image, &mut expected, &mut random);
        assert!(contents_of(&image) == expected, "{options}");
        // A flush has it all in the file, without the image being closed.
        let copy = directory.path().join("copy.qcow2");
        fs::copy(&path, &copy).unwrap();
        assert!(qemu_reads(&directory, &copy) == expected, "{options}");
        drop(image);
        assert!(qemu_reads(&directory, &path) == expected, "{options}");
        qemu_img(&directory, "check -f qcow2 disk.qcow2");
    }
}

/// Parts of one cluster, zeroed through one queue and written through another.
#[test]
fn a_write_beside_zeroes_is_kept() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    qemu_img(&directory, "create -f qcow2 disk.qcow2 1M");
    let image = Arc::new(open(&path, false).unwrap());
    let mut guest = driver(&image);
    for round in 0..500 {
        image.write_zeroes(0, 64 * KIB, true).unwrap();
        let (data, start) = ([round as u8 | 1; 512], Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                image.write_zeroes(512, 512, false).unwrap();
            });
            start.wait();
            assert_eq!(guest.request(OUT, 64, &data, 0).status, OK);
        });
        assert!(guest.request(IN, 64, &[], 512).data == data, "the write of round {round}");
    }
}

#[test]
fn what_qemu_wrote_into_qcow2_is_what_a_guest_reads() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    qemu_img(&directory, "create -f qcow2 plain.qcow2 4M");
    qemu_io(&directory.path().join("plain.qcow2"), "qcow2", "write -P 0x5a 100k 300k");
    qemu_img(&directory, "convert -c -f qcow2 -O qcow2 plain.qcow2 disk.qcow2");
    let mut expected = vec![0; 4 * MIB as usize];
    expected[100 * 1024..400 * 1024].fill(0x5a);

    let image = Arc::new(open(&path, true).unwrap());
    assert!(contents_of(&image) == expected);
    assert_eq!(image.commands(), Commands::default());
    assert_eq!(driver(&image).request(OUT, 0, &[1; 512], 0).status, IOERR);
    assert!(image.discard(0, 512).is_err() && image.write_zeroes(0, 512, true).is_err());
    drop(image);

    // Into a compressed cluster, too.
    let image = Arc::new(open(&path, false).unwrap());
    scribble(&image, &mut expected, &mut Random(0x5eed_0002));
    assert!(image.write_zeroes(4 * MIB - 512, 1024, false).is_err());
    assert!(image.discard(u64::MAX, 512).is_err());
    assert_eq!(driver(&image).request(IN, 4 * MIB / 512, &[], 512).status, IOERR);
    drop(image);
    assert!(qemu_reads(&directory, &path) == expected);
    qemu_img(&directory, "check -f qcow2 disk.qcow2");
}

#[test]
fn an_internal_snapshot_is_left_alone() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    qemu_img(&directory, "create -f qcow2 disk.qcow2 4M");
    qemu_io(&path, "qcow2", "write -P 0x11 0 2M");
    let mut expected = qemu_reads(&directory, &path);
    let before = expected.clone();
    qemu_img(&directory, "snapshot -c before disk.qcow2");
    let image = Arc::new(open(&path, false).unwrap());
    scribble(&image, &mut expected, &mut Random(0x5eed_0005));
    drop(image);
    assert!(qemu_reads(&directory, &path) == expected);
    qemu_img(&directory, "check -f qcow2 disk.qcow2");
    qemu_img(&directory, "convert -l before -f qcow2 -O raw disk.qcow2 before.raw");
    assert!(fs::read(directory.path().join("before.raw")).unwrap() == before);
}

/// A raw base of one MiB, and an overlay of four.
fn overlay(directory: &TempDir) -> (PathBuf, PathBuf, Vec<u8>) {
    let base = directory.path().join("base.img");
    let contents: Vec<u8> = (0..MIB).map(|n| (n / 4096 % 250 + 1) as u8).collect();
    fs::write(&base, &contents).unwrap();
    qemu_img(directory, "create -f qcow2 -F raw -b base.img disk.qcow2 4M");
    (base, directory.path().join("disk.qcow2"), contents)
}

#[test]
fn a_backing_file_is_read_and_left_alone() {
    let Some(directory) = directory() else { return };
    let (base, path, contents) = overlay(&directory);
    qemu_img(&directory, "create -f qcow2 -F qcow2 -b disk.qcow2 top.qcow2");
    let top = directory.path().join("top.qcow2");
    let mut expected = contents.clone();
    expected.resize(4 * MIB as usize, 0);

    let image = Arc::new(open(&top, false).unwrap());
    assert!(contents_of(&image) == expected);
    scribble(&image, &mut expected, &mut Random(0x5eed_0003));
    assert!(contents_of(&image) == expected);

    // Every layer is locked, and those below are shared with readers.
    for layer in [&base, &path, &top] {
        assert!(matches!(RawImage::open(layer, false), Err(OpenError::InUse { .. })));
    }
    RawImage::open(&base, true).unwrap();
    assert!(matches!(RawImage::open(&top, true), Err(OpenError::InUse { .. })));
    let resize = ["resize", "-f", "qcow2", top.to_str().unwrap(), "8M"];
    assert!(run("qemu-img", resize).is_none(), "resized under us");

    drop(image);
    assert!(qemu_reads(&directory, &top) == expected);
    assert!(fs::read(&base).unwrap() == contents);
    qemu_img(&directory, "check -f qcow2 top.qcow2");

    let image = open(&top, true).unwrap();
    assert!(!image.is_deleted());
    fs::remove_file(&base).unwrap();
    assert!(image.is_deleted(), "a part of it was");
    drop(image);
    let error = refusal(&top, ImageFormat::Qcow2, false);
    let sources = successors(error.source(), |&error| error.source());
    let message = sources.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(message.contains("base.img does not exist"), "{message}");
}

#[test]
fn a_backing_files_format_is_stated_and_never_guessed() {
    let Some(directory) = directory() else { return };
    let (base, path, _) = overlay(&directory);
    // A guest, in the days when the base was its disk, wrote this into it.
    qemu_img(&directory, "create -f qcow2 -F raw -b /etc/hostname secret.qcow2 1M");
    let mut hostile = fs::read(directory.path().join("secret.qcow2")).unwrap();
    hostile.resize(MIB as usize, 0);
    fs::write(&base, &hostile).unwrap();
    let image = Arc::new(open(&path, true).unwrap());
    assert!(contents_of(&image)[..MIB as usize] == hostile);
    drop(image);

    // The header extension that states the format, made an unknown one.
    let mut header = fs::read(&path).unwrap();
    let place = header.windows(4).position(|w| w == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    header[place..place + 4].copy_from_slice(b"none");
    fs::write(&path, header).unwrap();
    let error = refusal(&path, ImageFormat::Qcow2, true);
    assert!(matches!(error, OpenError::BackingFormat { .. }), "{error}");
    // Also when it is one further down.
    qemu_img(&directory, "create -u -f qcow2 -F qcow2 -b disk.qcow2 top.qcow2 4M");
    let error = refusal(&directory.path().join("top.qcow2"), ImageFormat::Qcow2, true);
    let OpenError::Layer { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, OpenError::BackingFormat { .. }), "{source}");
}

/// Version 2 specifies no header extensions; QEMU writes and reads this one all the same.
#[test]
fn a_backing_files_format_is_stated_in_version_2_too() {
    let Some(directory) = directory() else { return };
    let base = directory.path().join("base.img");
    fs::write(&base, noise(MIB)).unwrap();
    let options = "-o compat=0.10 -F raw -b base.img";
    qemu_img(&directory, &format!("create -f qcow2 {options} disk.qcow2"));
    let path = directory.path().join("disk.qcow2");
    for read_only in [true, false] {
        let image = Arc::new(open(&path, read_only).unwrap());
        assert!(contents_of(&image) == noise(MIB));
    }
    // An image whose backing file's name follows the header at once states no format.
    let mut header = fs::read(&path).unwrap();
    header[72..80].copy_from_slice(b"base.img");
    header[8..16].copy_from_slice(&72u64.to_be_bytes());
    fs::write(&path, header).unwrap();
    let error = refusal(&path, ImageFormat::Qcow2, true);
    assert!(matches!(error, OpenError::BackingFormat { .. }), "{error}");
}

#[test]
fn an_image_that_builds_on_itself_is_refused() {
    let Some(directory) = directory() else { return };
    qemu_img(&directory, "create -f qcow2 disk.qcow2 4M");
    qemu_img(&directory, "rebase -u -f qcow2 -F qcow2 -b disk.qcow2 disk.qcow2");
    let mut error = &refusal(&directory.path().join("disk.qcow2"), ImageFormat::Qcow2, true);
    while let OpenError::Layer { source, .. } = error {
        error = source;
    }
    assert!(matches!(error, OpenError::Chain { limit: 64, .. }), "{error}");
}

#[test]
fn an_external_data_file_holds_the_data() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.qcow2");
    let options = "data_file=disk.data,data_file_raw=on";
    qemu_img(&directory, &format!("create -f qcow2 -o {options} disk.qcow2 1M"));
    let image = Arc::new(open(&path, false).unwrap());
    let data = directory.path().join("disk.data");
    assert!(matches!(RawImage::open(&data, true), Err(OpenError::InUse { .. })));
    let mut guest = driver(&image);
    assert_eq!(guest.request(OUT, 100, &[7; 4096], 0).status, OK);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(fs::read(&data).unwrap()[51200..][..4096], [7; 4096]);
    drop((guest, image));
    fs::remove_file(&data).unwrap();
    let error = refusal(&path, ImageFormat::Qcow2, false);
    let message = error.source().expect("what is wrong with the other").to_string();
    assert!(message.contains("disk.data does not exist"), "{message}");
}

#[test]
fn a_flat_vmdk_is_read() {
    let Some(directory) = directory() else { return };
    let path = directory.path().join("disk.vmdk");
    for subformat in ["monolithicFlat", "twoGbMaxExtentFlat"] {
        qemu_img(&directory, &format!("create -f vmdk -o subformat={subformat} disk.vmdk 4M"));
        qemu_io(&path, "vmdk", "write -P 0x77 1000k 9k");
        let mut expected = vec![0; 4 * MIB as usize];
        expected[1000 * 1024..1009 * 1024].fill(0x77);
        let image = Arc::new(ImagoImage::open(&path, ImageFormat::Vmdk, true).unwrap());
        assert!(contents_of(&image) == expected, "{subformat}");
        assert_eq!(driver(&image).request(OUT, 0, &[1; 512], 0).status, IOERR);
        let error = refusal(&path, ImageFormat::Vmdk, false);
        assert!(matches!(error, OpenError::ReadOnlyFormat { .. }), "{error}");
    }
    qemu_img(&directory, "create -f vmdk -o subformat=monolithicSparse sparse.vmdk 4M");
    let error = refusal(&directory.path().join("sparse.vmdk"), ImageFormat::Vmdk, true);
    assert!(matches!(error, OpenError::Format { .. }), "{error}");
}

#[test]
fn an_image_is_what_it_was_said_to_be_or_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("disk.img");
    fs::write(&path, contents(64)).unwrap();
    for format in [ImageFormat::Qcow2, ImageFormat::Vmdk] {
        let error = refusal(&path, format, true);
        assert!(matches!(error, OpenError::Format { .. }), "{error}");
        assert!(error.to_string().contains(&format.to_string()));
        assert!(format.open(&path, true).is_err());
    }
    let error = refusal(&path, ImageFormat::Raw, true);
    assert!(matches!(error, OpenError::FormatMissing { .. }), "{error}");
    assert_eq!(ImageFormat::Raw.open(&path, true).unwrap().capacity(), 64 * 512);
    let missing = directory.path().join("missing");
    assert!(matches!(refusal(&missing, ImageFormat::Qcow2, true), OpenError::Missing { .. }));
    assert!(matches!(refusal(directory.path(), ImageFormat::Qcow2, true), OpenError::Kind { .. }));
}
