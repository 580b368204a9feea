//! qcow2 and VMDK images as a guest's disks, held against QEMU's tools. Without qemu-utils, nothing is
//! checked.
#![cfg(feature = "imago")]

mod common;

use std::{fs, path::Path};

use common::{
    config,
    host::{Host, sector_pattern},
    one_disk::DISK_LEN,
    qemu::{directory, qemu_img, qemu_io, qemu_reads},
    virtio_driver::{BlkDriver, probe},
};
use tempfile::TempDir;
use virtio_drivers::Error;
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing, Watchdog};

/// Sectors of a request.
const PIECE: usize = 64;

/// A host whose operator says of which format these images in `directory` are.
fn host(directory: &TempDir, formats: &[(&str, &str)]) -> Host {
    let file = directory.path().join("disks.toml");
    let tables = formats.iter().map(|(image, format)| {
        format!("[{:?}]\nformat = \"{format}\"\n", directory.path().join(image))
    });
    fs::write(&file, tables.collect::<String>()).unwrap();
    Host::with_settings(config::load(&file))
}

/// What a guest reads of the whole disk.
fn contents(driver: &mut BlkDriver) -> Vec<u8> {
    let mut all = vec![0; driver.capacity() as usize * 512];
    for (nth, piece) in all.chunks_mut(PIECE * 512).enumerate() {
        driver.read_blocks(nth * PIECE, piece).unwrap();
    }
    all
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn what_a_guest_writes_into_qcow2_is_what_qemu_reads() {
    let Some(directory) = directory() else { return };
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let _watchdog = Watchdog::start();
        qemu_img(&directory, "create -q -f qcow2 disk.qcow2 2M");
        qemu_io(&directory, "qcow2", "disk.qcow2", "write -P 0x5a 100k 300k");
        let mut expected = vec![0; 2 << 20];
        expected[100 << 10..400 << 10].fill(0x5a);

        let mut host = host(&directory, &[("disk.qcow2", "qcow2")]);
        let kernel = GuestKernel::new(&host.create_guest(1), sharing);
        let disk = DeviceConfig::disk(1, 0, directory.path().join("disk.qcow2")).sharing(sharing);
        host.serve(&disk);
        let mut driver = probe(host.window(&disk), &kernel).unwrap();
        assert_eq!((driver.capacity(), driver.readonly()), (2 << 11, false));
        assert!(contents(&mut driver) == expected, "{sharing:?}: what QEMU wrote");

        // Into clusters (of 64 KiB) that are there and such that aren't, and across both.
        for (sector, sectors) in [(0, 1), (190, 64), (780, 40), (1000, 64), (4095, 1)] {
            let data = bytes(sectors * 512);
            driver.write_blocks(sector, &data).unwrap();
            expected[sector * 512..][..data.len()].copy_from_slice(&data);
        }
        driver.flush().unwrap();
        assert!(contents(&mut driver) == expected, "{sharing:?}: what it wrote itself");
        drop(driver);
        host.close_device(&disk);
        host.settle();
        assert_eq!(host.state(&disk).as_deref(), Some("6"));
        qemu_img(&directory, "check -q -f qcow2 disk.qcow2");
        assert!(qemu_reads(&directory, "qcow2", "disk.qcow2") == expected, "{sharing:?}");
    }
}

#[test]
fn a_flat_vmdk_is_a_read_only_disk_and_no_other() {
    let Some(directory) = directory() else { return };
    let _watchdog = Watchdog::start();
    qemu_img(&directory, "create -q -f vmdk -o subformat=monolithicFlat disk.vmdk 4M");
    qemu_io(&directory, "vmdk", "disk.vmdk", "write -P 0x77 1000k 9k");
    let mut expected = vec![0; 4 << 20];
    expected[1000 << 10..1009 << 10].fill(0x77);

    let mut host = host(&directory, &[("disk.vmdk", "vmdk")]);
    let kernel = GuestKernel::new(&host.create_guest(1), Sharing::Foreign);
    let disk = DeviceConfig::disk(1, 0, directory.path().join("disk.vmdk"));
    host.add_device(&disk);
    host.settle();
    let error = host.error(&disk).expect("to be written, it is refused");
    assert!(error.contains("disk.vmdk") && error.contains("read"), "{error}");
    assert_eq!(host.state(&disk), None);
    host.remove_device(&disk);
    host.settle();

    let disk = disk.with("mode", "r");
    host.serve(&disk);
    let mut driver = probe(host.window(&disk), &kernel).unwrap();
    assert_eq!((driver.capacity(), driver.readonly()), (4 << 11, true));
    assert_eq!(driver.write_blocks(2000, &[0xee; 512]), Err(Error::IoError));
    assert!(contents(&mut driver) == expected);
    drop(driver);
    host.close_device(&disk);
    host.settle();
    assert!(qemu_reads(&directory, "vmdk", "disk.vmdk") == expected);
}

/// A guest that writes an image into its raw disk would, were it taken for one, read any file of the
/// host's that it names as its backing file.
#[test]
fn a_raw_disk_that_its_guest_made_look_like_qcow2_is_raw() {
    let Some(directory) = directory() else { return };
    let _watchdog = Watchdog::start();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("secret"), [0x5e; DISK_LEN as usize]).unwrap();
    qemu_img(&directory, "create -q -f qcow2 -F raw -b secret trap.qcow2");
    let mut trap = fs::read(at("trap.qcow2")).unwrap();
    trap.resize(trap.len().next_multiple_of(512), 0);
    assert!(qemu_reads(&directory, "qcow2", "trap.qcow2").iter().all(|byte| *byte == 0x5e));

    // The operator has other images of that format.
    let mut host = host(&directory, &[("other.qcow2", "qcow2")]);
    let kernel = GuestKernel::new(&host.create_guest(1), Sharing::Foreign);
    let image = host.image("disk.img", DISK_LEN);
    let mut serve = |nth, image: &Path| {
        let disk = DeviceConfig::disk(1, nth, image);
        host.serve(&disk);
        probe(host.window(&disk), &kernel).unwrap()
    };
    let mut driver = serve(0, &image);
    for (nth, piece) in trap.chunks(PIECE * 512).enumerate() {
        driver.write_blocks(nth * PIECE, piece).unwrap();
    }
    driver.flush().unwrap();
    let written = contents(&mut driver);
    assert!(written.starts_with(&trap) && written.ends_with(&sector_pattern(DISK_LEN / 512 - 1)));

    // As it comes again, beside the files that it names; and under a name that could mislead.
    for (nth, name) in [(1, "again.img"), (2, "again.qcow2")] {
        fs::copy(&image, at(name)).unwrap();
        let mut driver = serve(nth, &at(name));
        assert_eq!(driver.capacity(), DISK_LEN / 512);
        assert!(contents(&mut driver) == written, "{name}");
    }
}
