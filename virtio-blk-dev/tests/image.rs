//! Raw images: what opens, what doesn't and what it says, and requests served from a file.
#![cfg(all(feature = "test-utils", not(miri)))] // Miri has no locks of files

mod common;

use std::error::Error as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use common::*;
use tempfile::TempDir;
use virtio_blk_dev::{
    BlockConfig, Image, ImageWarning, OpenError, RawImage, RawOptions, SyncEngine,
};

fn file(directory: &TempDir, len: usize) -> std::path::PathBuf {
    let path = directory.path().join("disk.img");
    fs::write(&path, &contents(64)[..len]).unwrap();
    path
}

/// The error's message, which must name the path.
fn message(path: &Path, read_only: bool) -> String {
    let error = RawImage::open(path, read_only).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    error.source().map_or(message.clone(), |source| format!("{message}: {source}"))
}

#[test]
fn a_file_is_a_disk() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 4096);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    assert_eq!(
        (image.capacity(), image.topology().logical_block_size, image.trimmed()),
        (4096, 512, 0)
    );
    let engine = SyncEngine::new(Arc::clone(&image));
    let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine);

    assert_eq!(guest.request(IN, 2, &[], 1024).data, [[2; 512], [3; 512]].concat());
    assert_eq!(guest.request(OUT, 7, &[0xaa; 512], 0).status, OK);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(guest.request(OUT, 8, &[0xaa; 512], 0).status, IOERR);
    let mut expected = contents(8);
    expected[7 * 512..].fill(0xaa);
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn more_buffers_than_iov_max_go_in_several_calls() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 8192);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let config = BlockConfig { queue_size: 2048, ..Default::default() };
    let mut guest = Guest::new(image.capacity(), &config, F_ALL, SyncEngine::new(image));
    let (header, data, status) = (guest.header(IN, 1), guest.room(1536), guest.room(1));
    let pieces = (0..1536).map(|n| Buf { addr: data.addr + n, len: 1, ..data });
    let bufs: Vec<Buf> = std::iter::once(header).chain(pieces).chain([status]).collect();
    let answer = guest.serve(&bufs, data.addr, 1536, status.addr);
    assert_eq!((answer.status, answer.len), (OK, 1537));
    assert!(answer.data == contents(64)[512..2048]);
}

#[test]
fn a_file_cut_short_fails_reads_and_is_not_grown_by_them() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 4096);
    let image = Arc::new(RawImage::open(&path, false).unwrap());
    let engine = SyncEngine::new(Arc::clone(&image));
    let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine);
    File::options().write(true).open(&path).unwrap().set_len(1024).unwrap();
    assert_eq!(guest.request(IN, 1, &[], 1024).status, IOERR);
    assert_eq!(guest.request(IN, 1, &[], 512).status, OK);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1024);
}

#[test]
fn a_file_that_is_no_whole_number_of_sectors_is_rounded_down() {
    let directory = TempDir::new().unwrap();
    let image = RawImage::open(file(&directory, 1500), true).unwrap();
    assert_eq!((image.capacity(), image.trimmed()), (1024, 476));
    assert_eq!(image.warnings(), [ImageWarning::HiddenTail { bytes: 476 }]);
    assert!(image.warnings()[0].to_string().contains("last 476 bytes"));
    assert_eq!(RawImage::open(file(&directory, 1536), true).unwrap().warnings(), []);
}

#[test]
fn a_raw_image_that_begins_as_another_format_is_served_with_a_warning() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 8192);
    for direct in [false, true] {
        let open = || RawOptions::new().direct(direct).open(&path);
        if matches!(open(), Err(OpenError::Direct { .. } | OpenError::DirectBlocks { .. })) {
            continue; // A file system without direct I/O.
        }
        fs::write(&path, [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 8184]].concat()).unwrap();
        let found = "a qcow2 image";
        assert_eq!(open().unwrap().warnings(), [ImageWarning::OtherFormat { found }]);
        fs::write(&path, [0; 8192]).unwrap();
        assert_eq!(open().unwrap().warnings(), []);
    }
}

#[test]
fn a_read_only_image_is_opened_for_reading() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 4096);
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    let image = Arc::new(RawImage::open(&path, true).unwrap());
    assert!(image.is_read_only());
    // Even a device that forgot to refuse writes changes nothing.
    let engine = SyncEngine::new(Arc::clone(&image));
    let mut guest = Guest::new(image.capacity(), &BlockConfig::default(), F_ALL, engine);
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
    let error = guest.worker.take_last_error().unwrap();
    assert_eq!(error.source.raw_os_error(), Some(libc::EBADF));
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert!(fs::read(&path).unwrap() == contents(8));
}

#[test]
fn a_second_writer_is_kept_out_and_readers_share() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, 4096);
    let in_use =
        |read_only| matches!(RawImage::open(&path, read_only), Err(OpenError::InUse { .. }));

    let writer = RawImage::open(&path, false).unwrap();
    assert!(in_use(false) && in_use(true));
    assert!(message(&path, false).contains("in use"));
    drop(File::open(&path).unwrap());
    assert!(in_use(false), "closing another descriptor releases nothing");
    drop(writer);

    let readers = [RawImage::open(&path, true).unwrap(), RawImage::open(&path, true).unwrap()];
    assert!(in_use(false));
    drop(readers);
    assert!(!in_use(false));
}

#[test]
fn what_is_no_disk_is_refused_with_a_reason() {
    let directory = TempDir::new().unwrap();
    assert!(message(directory.path(), false).contains("is a directory"));
    assert!(message(directory.path(), true).contains("is a directory"));
    assert!(message(&directory.path().join("missing"), false).contains("does not exist"));
    assert!(message(Path::new("/dev/null"), false).contains("is a character device"));

    let fifo = directory.path().join("fifo");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert!(message(&fifo, true).contains("is a FIFO"), "without waiting for a writer");
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(message(&socket, true).contains("is a socket"));

    for len in [0, 1, 511] {
        let path = file(&directory, len);
        let text = format!("has {len} bytes, and a disk has at least one block of 512");
        assert!(message(&path, true).contains(&text), "{len} bytes");
    }
    let dangling = directory.path().join("dangling");
    std::os::unix::fs::symlink(directory.path().join("nothing"), &dangling).unwrap();
    assert!(message(&dangling, false).contains("does not exist"));
}

#[test]
fn what_may_not_be_opened_is_refused_with_a_reason() {
    let directory = TempDir::new().unwrap();
    let below = file(&directory, 512).join("below-a-file");
    assert!(message(&below, true).contains("check its permissions"));
    assert!(message(&below, false).contains("configure the disk as read-only"));

    let path = file(&directory, 512);
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    if File::open(&path).is_ok() {
        return; // A privileged user may open anything.
    }
    assert!(message(&path, true).contains("Permission denied"));
    assert!(message(&path, false).contains("Permission denied"));
}
