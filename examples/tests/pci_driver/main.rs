//! A driver written by others, rcore-os' `virtio-drivers`, on a PCI bus with one disk: its code finds the
//! function and places the BAR, its block driver reads and writes through registers and rings. Every
//! access is one of a guest, and answered where it stands.

#[path = "../common/mod.rs"]
mod common;
mod machine;
mod memory;
mod registers;

use common::pci_driver::PciRegisters;
use machine::{Machine, SECTORS, SLOT, sector_pattern};
use memory::{Dma, pages_in_use};
use registers::Registers;
use virtio_drivers::{
    device::blk::VirtIOBlk,
    transport::{
        DeviceType, InterruptStatus, Transport as _,
        pci::{PciTransport, virtio_device_type},
    },
};

fn driver(machine: &Machine, msix: bool) -> VirtIOBlk<Dma, PciRegisters<Registers>> {
    let mut root = machine.place();
    let registers = Registers::find(&mut root, machine, msix);
    VirtIOBlk::new(PciRegisters::new(registers, false)).expect("the driver takes the device")
}

fn reads_and_writes(
    machine: &Machine,
    driver: &mut VirtIOBlk<Dma, PciRegisters<Registers>>,
) -> usize {
    assert_eq!(driver.capacity(), SECTORS as u64);
    assert!(!driver.readonly());
    let mut sector = [0; 512];
    for number in [0, 1, 33, SECTORS - 1] {
        driver.read_blocks(number, &mut sector).unwrap();
        assert_eq!(sector, sector_pattern(number), "sector {number}");
    }
    let long: Vec<u8> = (0..5 * 4096 + 512).map(|at| (at * 11 % 251) as u8).collect();
    driver.write_blocks(8, &long).unwrap();
    driver.flush().unwrap();
    let on_disk = machine.image.with_bytes(|bytes| bytes[8 * 512..][..long.len()].to_vec());
    assert!(on_disk == long);
    let mut back = vec![0; long.len()];
    driver.read_blocks(8, &mut back).unwrap();
    assert!(back == long);
    // Requests.
    7
}

#[test]
fn the_drivers_own_code_finds_a_block_device() {
    let machine = Machine::new();
    let mut root = machine.place();
    let (_, info) = root.enumerate_bus(0).next().unwrap();
    assert_eq!(virtio_device_type(&info), Some(DeviceType::Block));
    // It looks through the capabilities, and whether each structure is in the BAR, large enough and
    // aligned; its accesses go to memory that nobody answers.
    let transport = PciTransport::new::<Dma, _>(&mut root, SLOT).expect("all structures");
    assert_eq!(transport.device_type(), DeviceType::Block);
}

#[test]
fn a_driver_with_messages_gets_one_for_each_request_and_reads_no_isr_status() {
    let machine = Machine::new();
    let mut driver = driver(&machine, true);
    assert!(machine.messages().is_empty());
    let requests = reads_and_writes(&machine, &mut driver);
    assert_eq!(machine.messages(), vec![41; requests]);
    assert!(driver.ack_interrupt().is_empty());
    drop(driver);
    assert_eq!(pages_in_use(), 0);
}

#[test]
fn a_driver_without_messages_finds_the_isr_status() {
    let machine = Machine::new();
    let mut driver = driver(&machine, false);
    reads_and_writes(&machine, &mut driver);
    assert!(machine.messages().is_empty());
    assert!(driver.ack_interrupt() == InterruptStatus::QUEUE_INTERRUPT);
    assert!(driver.ack_interrupt().is_empty(), "reading has cleared it");
    drop(driver);
    assert_eq!(pages_in_use(), 0);
}

#[test]
fn a_second_driver_takes_the_device_over_after_the_first() {
    let machine = Machine::new();
    for msix in [false, true, false] {
        let mut driver = driver(&machine, msix);
        let mut sector = [0; 512];
        driver.read_blocks(5, &mut sector).unwrap();
        assert_eq!(sector, sector_pattern(5));
        drop(driver);
        assert_eq!(pages_in_use(), 0);
        // As the next finds a BAR without an address.
        machine.place_nothing();
    }
}
