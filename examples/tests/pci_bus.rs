//! A guest with a PCI bus, and what is on it.

mod common;

use common::{
    host::{Host, sector_pattern},
    one_disk::DISK_LEN,
    pci_driver::{PciBlkDriver, probe_on_bus},
    virtio_driver::probe,
};
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    TransportKind, Transports,
    fake::{DeviceConfig, GuestKernel, PciFunction, Sharing, Watchdog, Window, reg, until},
    node::DeviceType,
};

/// Where guests here put the registers of their first device, and of the second.
const BARS: [u64; 2] = [0x2300_0000, 0x2301_0000];
/// The first interrupt for messages.
const SPI: u32 = 96;
const SHARINGS: [Sharing; 2] = [Sharing::Foreign, Sharing::Grant];

fn host() -> Host {
    let mut host = Host::new();
    host.set_transports(TransportKind::Pci);
    host
}

/// A disk, the `nth` of domain 1, which is served.
fn disk(host: &mut Host, nth: u32, sharing: Sharing) -> DeviceConfig {
    let image = host.image(&format!("disk{nth}.img"), DISK_LEN);
    let disk = DeviceConfig::disk(1, nth, &image).sharing(sharing);
    host.serve(&disk);
    disk
}

/// The `nth` disk of a guest on its bus, with interrupts.
fn function(domain: &FakeDomain, nth: u8) -> PciFunction {
    let found = PciFunction::find(domain, 0, nth + 1, BARS[usize::from(nth)]);
    let function = found.expect("the disk is on the bus");
    for vector in 0..2 {
        function.set_vector(vector, SPI + 2 * u32::from(nth) + u32::from(vector));
    }
    function
}

fn read(driver: &mut PciBlkDriver, sector: u64) -> [u8; 512] {
    let mut data = [0; 512];
    driver.read_blocks(sector as usize, &mut data).unwrap();
    data
}

fn has_no_device(window: &Window) -> bool {
    window.has_device() && window.read(reg::DEVICE_ID) == 0
}

#[test]
fn a_guest_that_looks_at_its_bus_has_its_disk_there_and_in_no_window() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let mut host = host();
        let domain = host.create_guest(1);
        let kernel = GuestKernel::new(&domain, sharing);
        let disk = disk(&mut host, 0, sharing);
        let mut driver = probe_on_bus(function(&domain, 0), &kernel).unwrap();
        assert!(has_no_device(&host.window(&disk)));
        assert_eq!(driver.capacity(), DISK_LEN / 512);
        assert_eq!(read(&mut driver, 77), sector_pattern(77));
        driver.write_blocks(77, &[0x5a; 1024]).unwrap();
        driver.flush().unwrap();
        assert_eq!(read(&mut driver, 78), [0x5a; 512], "{sharing:?}");
        until("an interrupt of the queue", || domain.irq_count(SPI + 1) > 0);
        assert_eq!(domain.irq_count(disk.irq()), 0, "that of the window");
        drop(driver);
        assert_eq!(kernel.pages_in_use(), 0);
    }
}

#[test]
fn a_guest_without_a_bus_uses_the_window() {
    let _watchdog = Watchdog::start();
    let mut host = host();
    let domain = host.create_guest(1);
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let disk = disk(&mut host, 0, Sharing::Foreign);
    let mut driver = probe(host.window(&disk), &kernel).unwrap();
    let mut data = [0; 512];
    driver.read_blocks(3, &mut data).unwrap();
    assert_eq!(data, sector_pattern(3));
    // A driver that uses it keeps it.
    assert_eq!(PciFunction::vendor(&domain, 0, 1), Ok(u32::MAX));
    driver.read_blocks(4, &mut data).unwrap();
    assert_eq!(data, sector_pattern(4));
    // As firmware does, before the kernel looks at the bus.
    drop(driver);
    let mut driver = probe_on_bus(function(&domain, 0), &kernel).unwrap();
    assert_eq!(read(&mut driver, 5), sector_pattern(5));
}

#[test]
fn every_place_on_the_bus_is_answered_and_each_device_by_the_process_that_has_it() {
    let _watchdog = Watchdog::start();
    let mut host = host();
    let domain = host.create_guest(1);
    // By two processes, each with an IOREQ server of its own.
    let [foreign, grant] = SHARINGS.map(|sharing| GuestKernel::new(&domain, sharing));
    let grant = foreign.with_sharing(grant.sharing());
    disk(&mut host, 0, Sharing::Foreign);
    disk(&mut host, 1, Sharing::Grant);
    // Of a backend that does not run.
    host.add_device(&DeviceConfig::generic(1, 2, DeviceType(4)));
    host.settle();
    for place in 0..32 {
        let vendor = PciFunction::vendor(&domain, 0, place);
        match place {
            1 | 2 => assert_eq!(vendor.unwrap() & 0xffff, 0x1af4, "{place}"),
            // To claim it would take the guest's accesses from the backend that it has.
            3 => assert!(vendor.is_err()),
            _ => assert_eq!(vendor, Ok(u32::MAX), "{place}"),
        }
    }
    let mut first = probe_on_bus(function(&domain, 0), &foreign).unwrap();
    assert_eq!(read(&mut first, 9), sector_pattern(9));
    drop(first);
    let mut second = probe_on_bus(function(&domain, 1), &grant).unwrap();
    assert_eq!(read(&mut second, 10), sector_pattern(10));
}

#[test]
fn registers_are_answered_where_the_guest_has_put_them_and_nowhere_else() {
    let _watchdog = Watchdog::start();
    let mut host = host();
    let domain = host.create_guest(1);
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    disk(&mut host, 0, Sharing::Foreign);
    let mut it = function(&domain, 0);
    assert!(it.answers_at(BARS[0]) && !it.answers_at(BARS[1]));
    it.move_to(BARS[1]);
    assert!(it.answers_at(BARS[1]) && !it.answers_at(BARS[0]));
    // Outside of the bridge's window, as over the guest's memory.
    it.move_to(0x4000_0000);
    assert!(!it.answers_at(BARS[1]));
    it.move_to(BARS[0]);
    let mut driver = probe_on_bus(it, &kernel).unwrap();
    assert_eq!(read(&mut driver, 11), sector_pattern(11));
}

#[test]
fn an_interrupt_that_the_guest_does_not_have_is_told_of_with_what_to_write() {
    let _watchdog = Watchdog::start();
    let mut host = host();
    // As libxl makes it for one virtio-mmio device.
    let domain = host.add_guest(FakeDomain::builder().domid(1).nr_spis(12).build());
    let disk = disk(&mut host, 0, Sharing::Foreign);
    let _function = function(&domain, 0);
    host.settle_until(std::time::Duration::from_secs(10), |host| host.error(&disk).is_some());
    let error = host.error(&disk).unwrap();
    assert!(error.contains("interrupt 96") && error.contains("nr_spis"), "{error}");
}

#[test]
fn only_the_guests_that_are_named_have_a_bus() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let guests = [("web".to_owned(), TransportKind::Pci)].into();
    host.set_transports(Transports { default: TransportKind::Mmio, guests });
    for (domid, name, has_bus) in [(1, "web", true), (2, "db", false)] {
        let domain = host.create_guest(domid);
        host.name_guest(domid, name, "4e6b7a5e-0000-4000-8000-000000000001");
        let image = host.image(name, DISK_LEN);
        host.serve(&DeviceConfig::disk(domid, 0, &image));
        assert_eq!(PciFunction::vendor(&domain, 0, 1).is_ok(), has_bus, "{name}");
    }
}

#[test]
fn a_disk_that_is_let_go_of_leaves_an_empty_place() {
    let _watchdog = Watchdog::start();
    let mut host = host();
    let domain = host.create_guest(1);
    let disk = disk(&mut host, 0, Sharing::Foreign);
    let function = function(&domain, 0);
    host.close_device(&disk);
    host.settle();
    assert_eq!(PciFunction::vendor(&domain, 0, 1), Ok(u32::MAX));
    assert_eq!(function.read_common(0, 4), u64::from(u32::MAX), "its registers");
}
