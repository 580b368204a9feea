//! Images made from files that were opened before, perhaps by another process.
#![cfg(all(feature = "test-utils", feature = "serde", not(miri)))]

mod common;
#[path = "common/host.rs"]
mod host;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use common::*;
use host::*;
use tempfile::TempDir;
use virtio_blk_dev::{
    Image, ImageFacts, ImageFiles, ImageFormat, OpenError, PartsError, RawImage, RawOptions,
};

/// Splits, passes the facts as bytes and duplicates of the descriptors, and joins.
fn pass(files: ImageFiles) -> ImageFiles {
    let (facts, fds) = files.into_parts();
    let bytes = postcard::to_stdvec(&facts).unwrap();
    let facts: ImageFacts = postcard::from_bytes(&bytes).unwrap();
    let fds = fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    ImageFiles::from_parts(facts, fds).unwrap()
}

fn parts(path: &Path, options: RawOptions) -> (ImageFacts, Vec<OwnedFd>) {
    options.open_files(path).unwrap().into_parts()
}

#[test]
fn a_raw_image_of_passed_files_is_the_one_of_its_path() {
    let directory = TempDir::new().unwrap();
    // Whatever its name is.
    let path = directory.path().join(OsStr::from_bytes(b"disk\xff.img"));
    for options in [
        RawOptions::new(),
        RawOptions::new().read_only(true).spares(3),
        RawOptions::new().direct(true).logical_block_size(4096).spares(2),
    ] {
        fs::write(&path, noise(64 * KIB)).unwrap();
        let Ok(opened) = options.open(&path) else {
            skip("no direct I/O on this file system");
            continue;
        };
        let told = |image: &RawImage| {
            let units = (image.topology(), image.commands(), image.alignment());
            (image.capacity(), image.is_read_only(), image.is_direct(), units)
        };
        let expected = told(&opened);
        drop(opened);
        let files = pass(options.open_files(&path).unwrap());
        assert_eq!((files.format(), files.path()), (ImageFormat::Raw, &*path));
        // From here on nothing can be opened by its path.
        fs::remove_file(&path).unwrap();
        let image = Arc::new(RawImage::from_files(files).unwrap());
        assert_eq!(told(&image), expected, "{options:?}");
        let mut guest = driver(&image);
        assert!(guest.request(IN, 8, &[], 4096).data == noise(64 * KIB)[4096..8192]);
        let status = if image.is_read_only() { IOERR } else { OK };
        assert_eq!(guest.request(OUT, 16, &[7; 4096], 0).status, status);
        assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    }
}

#[test]
fn passed_files_are_locked_until_the_image_is_gone() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let image = RawImage::from_files(pass(RawOptions::new().spares(2).open_files(&path).unwrap()));
    let error = RawImage::open(&path, true).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(image);
    RawImage::open(&path, true).unwrap();
}

#[test]
fn descriptors_that_are_not_the_images_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = file(directory.path(), 64 * KIB);
    let other = || OwnedFd::from(tempfile::tempfile().unwrap());
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    let options = RawOptions::new().spares(2);

    let (facts, mut fds) = parts(&path, options);
    fds.pop();
    let error = ImageFiles::from_parts(facts, fds).unwrap_err();
    assert!(matches!(error, PartsError::Count { expected: 3, found: 2, .. }), "{error}");

    let (facts, mut fds) = parts(&path, options);
    fds.push(other());
    let error = ImageFiles::from_parts(facts, fds).unwrap_err();
    assert!(matches!(error, PartsError::Count { expected: 3, found: 4, .. }), "{error}");

    for (place, fd) in [(0, null()), (2, other()), (1, null())] {
        let (facts, mut fds) = parts(&path, options);
        fds[place] = fd;
        let error = ImageFiles::from_parts(facts, fds).unwrap_err();
        assert!(matches!(error, PartsError::Kind { index, .. } if index == place), "{error}");
    }
}

#[test]
fn an_image_without_a_block_is_refused_by_its_path() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("empty.img");
    fs::write(&path, [0; 511]).unwrap();
    let files = pass(RawOptions::new().open_files(&path).unwrap());
    let error = RawImage::from_files(files).unwrap_err();
    assert!(matches!(error, OpenError::TooSmall { size: 511, block: 512, .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[cfg(feature = "imago")]
mod chains {
    use virtio_blk_dev::ImagoImage;

    use super::*;

    fn contents(image: &Arc<ImagoImage>) -> Vec<u8> {
        driver(image).request(IN, 0, &[], image.capacity() as usize).data
    }

    fn open_files(path: &Path, format: ImageFormat, read_only: bool) -> ImageFiles {
        // A tool that another test is about to start still has the lock of an image that was closed here.
        std::iter::repeat_with(|| format.open_files(path, read_only))
            .find(|result| !matches!(result, Err(OpenError::InUse { .. })))
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_chain_of_passed_files_opens_no_other() {
        let Some(directory) = directory() else { return };
        let path = |name: &str| directory.path().join(name);
        fs::write(path("base.img"), noise(256 * KIB)).unwrap();
        qemu_img(&directory, "create -f qcow2 -F raw -b base.img middle.qcow2");
        let data = "data_file=top.data";
        qemu_img(
            &directory,
            &format!("create -f qcow2 -o {data} -F qcow2 -b middle.qcow2 top.qcow2"),
        );
        let files = pass(open_files(&path("top.qcow2"), ImageFormat::Qcow2, false));
        assert_eq!((files.format(), files.path()), (ImageFormat::Qcow2, &*path("top.qcow2")));
        let names = ["base.img", "middle.qcow2", "top.qcow2", "top.data"];
        names.iter().for_each(|name| fs::rename(path(name), path(&format!("{name}.old"))).unwrap());

        let image = Arc::new(ImagoImage::from_files(files).unwrap());
        assert!(contents(&image) == noise(256 * KIB));
        assert!(!image.is_deleted());
        let mut guest = driver(&image);
        assert_eq!(guest.request(OUT, 8, &[7; 4096], 0).status, OK);
        assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
        drop(guest);
        let mut expected = noise(256 * KIB);
        expected[4096..8192].fill(7);
        assert!(contents(&image) == expected);
        fs::remove_file(path("base.img.old")).unwrap();
        assert!(image.is_deleted());
    }

    #[test]
    fn a_vmdk_image_of_passed_files_has_its_extents() {
        let Some(directory) = directory() else { return };
        let path = directory.path().join("disk.vmdk");
        qemu_img(&directory, "create -f vmdk -o subformat=monolithicFlat disk.vmdk 256k");
        qemu_io(&path, "vmdk", "write -P 0x77 100k 9k");
        let files = pass(open_files(&path, ImageFormat::Vmdk, true));
        fs::remove_file(directory.path().join("disk-flat.vmdk")).unwrap();
        let image = Arc::new(ImagoImage::from_files(files).unwrap());
        assert!(contents(&image)[100 * 1024..][..9 * 1024] == [0x77; 9 * 1024]);
    }

    /// Of two images, one is joined with the other's descriptors, which are of the same number and kinds.
    #[test]
    fn a_file_that_the_image_names_and_nobody_opened_is_an_error() {
        let Some(directory) = directory() else { return };
        for name in ["a", "b"] {
            fs::write(directory.path().join(format!("{name}.img")), noise(64 * KIB)).unwrap();
            let backing = format!("-F raw -b {name}.img {name}.qcow2");
            qemu_img(&directory, &format!("create -f qcow2 {backing}"));
        }
        let open = |name: &str| {
            open_files(&directory.path().join(name), ImageFormat::Qcow2, true).into_parts()
        };
        let ((facts, _), (_, fds)) = (open("a.qcow2"), open("b.qcow2"));
        let error =
            ImagoImage::from_files(ImageFiles::from_parts(facts, fds).unwrap()).unwrap_err();
        assert!(matches!(error, OpenError::Format { .. }), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("another file"), "{source}");
    }

    #[test]
    fn files_make_an_image_of_their_format_alone() {
        let Some(directory) = directory() else { return };
        let raw = file(directory.path(), 64 * KIB);
        let error =
            ImagoImage::from_files(RawOptions::new().open_files(&raw).unwrap()).unwrap_err();
        assert!(matches!(error, OpenError::FormatMissing { .. }), "{error}");
        qemu_img(&directory, "create -f qcow2 disk.qcow2 64k");
        let path = directory.path().join("disk.qcow2");
        let error = RawImage::from_files(open_files(&path, ImageFormat::Qcow2, true)).unwrap_err();
        assert!(matches!(error, OpenError::FormatMissing { .. }), "{error}");
    }
}
