//! The fakes that tests of backends stand on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use xen_foreignmem::{GrantTable, Prot};
use xen_ioreq::{DeviceModel, fake::FakeDomain};
use xen_virtio_backend::{
    fake::{DeviceConfig, GuestKernel, Sharing, Window},
    node::DeviceType,
};

#[test]
fn devices_are_described_as_libxl_describes_them() {
    let disk = DeviceConfig::disk(7, 2, "/images/a.img").sharing(Sharing::Grant);
    assert_eq!(disk.path(), "/local/domain/0/backend/virtio_disk/7/51744");
    assert_eq!((disk.base(), disk.irq(), disk.shares_by()), (0x200_0400, 35, Sharing::Grant));
    let generic = DeviceConfig::generic(7, 2, DeviceType(26));
    assert_eq!(generic.path(), "/local/domain/0/backend/virtio/7/2");
    for (device, node, value) in [
        (&disk, "params", "/images/a.img"),
        (&disk, "base", "33555456"),
        (&disk, "dev", "xvdc"),
        (&disk, "frontend", "/local/domain/7/device/virtio_disk/51744"),
        (&disk, "grant_usage", "1"),
        (&disk, "irq", "35"),
        (&generic, "base", "0x2000400"),
        (&generic, "type", "virtio,device1a"),
        (&generic, "grant_usage", "0"),
        (&generic, "state", "1"),
    ] {
        assert_eq!(device.node(node), Some(value.as_bytes()), "{node}");
    }
    assert_eq!(generic.node("params"), None);
}

#[test]
fn a_node_that_says_otherwise_leaves_the_window_where_the_guest_has_it() {
    let device = DeviceConfig::generic(1, 0, DeviceType(4)).with("base", "banana").without("irq");
    assert_eq!((device.base(), device.irq()), (0x200_0000, 33));
    assert_eq!((device.node("base"), device.node("irq")), (Some(b"banana".as_slice()), None));
    let moved = DeviceConfig::generic(1, 0, DeviceType(4)).at(0x300_0000, 40);
    assert_eq!((moved.base(), moved.node("base")), (0x300_0000, Some(b"0x3000000".as_slice())));
}

#[test]
fn kernels_of_one_guest_give_no_page_twice() {
    let domain = FakeDomain::default();
    let foreign = GuestKernel::new(&domain, Sharing::Foreign);
    let granting = foreign.with_sharing(Sharing::Grant);
    let pages = [foreign.alloc(2), granting.alloc(1), foreign.alloc(1), granting.alloc(2)];
    let mut frames: Vec<_> = pages.iter().zip([2, 1, 1, 2]).collect();
    frames.sort();
    assert!(
        frames.windows(2).all(|pair| pair[0].0 + pair[0].1 * 4096 <= *pair[1].0),
        "{frames:x?}"
    );
    assert_eq!(foreign.pages_in_use(), 6);
}

#[test]
fn a_buffer_that_is_taken_back_while_the_backend_has_its_grant_mapped_ends_the_test() {
    let domain = FakeDomain::default();
    let kernel = GuestKernel::new(&domain, Sharing::Grant);
    let buffer = kernel.share(kernel.alloc(1), 4096, false);
    let gref = (buffer.device >> 12) as u32;
    let mapped = domain.grant_table().map(&[gref], Prot::READ).unwrap();
    let unshare = AssertUnwindSafe(|| kernel.unshare(buffer.device));
    assert!(catch_unwind(unshare).is_err());
    drop(mapped);
}

#[test]
fn an_interrupt_is_waited_for_once_however_many_windows_a_device_has() {
    let domain = FakeDomain::builder().vcpus(2).build();
    let window = Window::new(&domain, 0, 0x200_0000, 33);
    let clone = window.clone();
    // Nobody answers at the window.
    window.power_off();
    let model = domain.device_model();
    model.set_irq_level(33, true).unwrap();
    assert_eq!(clone.wait_interrupt(), 0);
    assert_eq!(window.interrupts(), 1);
    let late = std::thread::spawn(move || window.wait_interrupt());
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(!late.is_finished(), "the interrupt was dealt with through the other");
    model.set_irq_level(33, true).unwrap();
    assert_eq!(late.join().unwrap(), 0);
}
