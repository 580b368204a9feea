//! The entropy device of the guide, `virtio-rng`, and guests of the fake hypervisor that use it.

mod common;
#[path = "../virtio-rng/main.rs"]
#[expect(dead_code, reason = "its main is for Xen")]
mod virtio_rng;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use common::virtio_driver::probe_entropy;
use virtio_rng::Entropy;
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    Inline as _, InlineDevices,
    fake::{DeviceConfig, FakeToolstack, Sharing, WRITE, Watchdog, Window, reg},
    node::DeviceType,
};

fn new_toolstack() -> FakeToolstack<InlineDevices<Entropy>> {
    FakeToolstack::new(InlineDevices::new)
}

/// An entropy device as the toolstack describes it.
fn entropy(domid: u16, sharing: Sharing) -> DeviceConfig {
    DeviceConfig::generic(domid, 0, Entropy::DEVICE_TYPE).sharing(sharing)
}

/// A guest with an entropy device.
struct Guest {
    toolstack: FakeToolstack<InlineDevices<Entropy>>,
    domain: FakeDomain,
    device: DeviceConfig,
    _watchdog: Watchdog,
}

impl Guest {
    fn new(sharing: Sharing) -> Self {
        let mut toolstack = new_toolstack();
        let domain = toolstack.create_guest(1);
        let device = entropy(1, sharing);
        toolstack.serve(&device);
        Self { toolstack, domain, device, _watchdog: Watchdog::start() }
    }

    fn window(&self) -> Window {
        self.toolstack.window(&self.device)
    }

    /// The toolstack closes the device.
    fn close(&mut self) {
        self.toolstack.close_device(&self.device);
        self.toolstack.settle();
        assert_eq!(self.toolstack.state(&self.device).as_deref(), Some("6"));
    }

    fn destroy(&mut self) {
        self.toolstack.destroy_guest(1);
        self.toolstack.settle();
        assert_eq!(self.domain.foreign_memory().live_mappings(), 0);
        assert_eq!(self.domain.grants().live_mappings(), 0);
    }
}

#[test]
fn a_request_is_filled_and_its_driver_is_told() {
    for sharing in Sharing::ALL {
        let mut toolstack = FakeToolstack::new(InlineDevices::<Entropy>::new);
        let guest = toolstack.create_guest(1);
        let device = DeviceConfig::generic(1, 0, Entropy::DEVICE_TYPE).sharing(sharing);
        toolstack.serve(&device);

        let mut driver = toolstack.driver(&device, 0);
        let buffer = driver.buffer(64);
        assert_eq!(driver.submit(&[buffer.writable()]), 64);
        assert_ne!(driver.get(buffer.guest), [0; 64]);
        assert_eq!(driver.window().wait_interrupt(), 1, "a used buffer");
        driver.release(buffer);

        toolstack.close_device(&device);
        toolstack.settle();
        assert_eq!(toolstack.state(&device).as_deref(), Some("6"));
        toolstack.destroy_guest(1);
        toolstack.settle();
        assert_eq!(guest.foreign_memory().live_mappings(), 0);
    }
}

#[test]
fn a_driver_gets_bytes_that_are_neither_constant_nor_the_same_again() {
    for sharing in Sharing::ALL {
        let mut guest = Guest::new(sharing);
        let kernel = guest.toolstack.kernel(1, sharing);
        let mut driver = probe_entropy(guest.window(), &kernel).expect("a device");
        let mut seen = BTreeSet::new();
        for _ in 0..64 {
            let mut buffer = [0; 64];
            assert_eq!(driver.request_entropy(&mut buffer).unwrap(), 64, "{sharing:?}");
            assert!(buffer.iter().collect::<BTreeSet<_>>().len() > 16, "{buffer:?}");
            assert!(seen.insert(buffer), "twice the same");
        }
        // A large one gets a part, and the rest stays as the driver's fresh pages are.
        let mut buffer = [0xff; 4096];
        assert_eq!(driver.request_entropy(&mut buffer).unwrap(), 256);
        assert_eq!(buffer[256..], [0; 4096 - 256]);
        assert!(guest.window().interrupts() > 0, "the driver polls, but is told");
        drop(driver);
        assert_eq!(kernel.pages_in_use(), 0);
        guest.close();
        guest.destroy();
    }
}

#[test]
fn the_window_answers_when_the_guest_may_run() {
    let _watchdog = Watchdog::start();
    let mut toolstack = new_toolstack();
    let domain = toolstack.create_guest(1);
    let first = Arc::<Mutex<Vec<_>>>::default();
    let (accesses, vcpu) = (Arc::clone(&first), domain.vcpu(1));
    let nodes = entropy(1, Sharing::Foreign);
    let base = nodes.base();
    toolstack.on_write(move |path, value| {
        if path.ends_with("/state") && value == b"2" {
            accesses.lock().unwrap().push(vcpu.read(base, 4));
        }
    });
    toolstack.serve(&nodes);
    assert_eq!(*first.lock().unwrap(), [Ok(reg::MAGIC_VALUE.into())]);
    assert_eq!(toolstack.window(&nodes).read(reg::DEVICE_ID), 4);
}

#[test]
fn the_window_of_a_device_that_was_closed_reads_all_ones_while_its_guest_goes_on() {
    for sharing in Sharing::ALL {
        let mut guest = Guest::new(sharing);
        let mut driver = guest.toolstack.driver(&guest.device, 0);
        let room = driver.buffer(64);
        assert_eq!(driver.submit(&[room.writable()]), 64);
        guest.close();
        // The page of the server is all that is left.
        assert_eq!(guest.domain.foreign_memory().live_mappings(), 1, "{sharing:?}");
        assert_eq!(guest.domain.grants().live_mappings(), 0, "{sharing:?}");
        for register in [reg::MAGIC, reg::STATUS, reg::DEVICE_ID] {
            assert_eq!(guest.window().read(register), u32::MAX, "{sharing:?}");
        }
        guest.window().write(reg::STATUS, 0);
        guest.destroy();
    }
}

#[test]
fn several_guests_are_served_and_other_devices_are_passed_over() {
    let _watchdog = Watchdog::start();
    let mut toolstack = new_toolstack();
    let guests =
        [1, 2].map(|domid| (entropy(domid, Sharing::Foreign), toolstack.create_guest(domid)));
    for (nodes, _) in &guests {
        toolstack.serve(nodes);
    }
    let console = DeviceConfig::generic(1, 1, DeviceType(3));
    toolstack.add_device(&console);
    toolstack.settle();
    assert_eq!(toolstack.state(&console).as_deref(), Some("1"));
    assert!(!toolstack.window(&console).is_there(), "for its own backend to claim");
    for (nodes, _) in &guests {
        let kernel = toolstack.kernel(nodes.domid(), Sharing::Foreign);
        let mut driver = probe_entropy(toolstack.window(nodes), &kernel).expect("a device");
        assert_eq!(driver.request_entropy(&mut [0; 16]).unwrap(), 16);
    }
    toolstack.destroy_guest(1);
    toolstack.settle();
    assert!(toolstack.window(&guests[1].0).has_device(), "another guest's end is not its own");
}

#[test]
fn a_guest_that_is_destroyed_is_let_go_of() {
    let mut guest = Guest::new(Sharing::Foreign);
    assert_eq!(guest.window().read(reg::MAGIC), reg::MAGIC_VALUE);
    guest.destroy();
}

#[test]
fn a_device_whose_nodes_vanish_is_closed() {
    let mut guest = Guest::new(Sharing::Foreign);
    guest.toolstack.remove_device(&guest.device);
    guest.toolstack.settle();
    assert_eq!(guest.window().read(reg::MAGIC), u32::MAX);
    assert_eq!(guest.toolstack.state(&guest.device), None, "and nothing is written there again");
    guest.destroy();
}

#[test]
fn nonsense_gets_nothing_and_harms_nobody() {
    for sharing in Sharing::ALL {
        let mut guest = Guest::new(sharing);
        let mut driver = guest.toolstack.driver(&guest.device, 0);
        let room = driver.buffer(64);
        for (nonsense, gets) in [
            (vec![(room.device, 64, 0)], 0),      // nothing to write to
            (vec![(0x10, 64, WRITE)], 0),         // no memory of the guest's
            (vec![(u64::MAX - 3, 64, WRITE)], 0), // nor there
            (vec![(room.device, 1, 0), (room.device, 1, WRITE)], 1), // odd, but allowed
            (vec![(room.device, 64, WRITE)], 64),
        ] {
            assert_eq!(driver.submit(&nonsense), gets, "{nonsense:x?}");
        }
        for address in [guest.device.base(), guest.device.base() + 0x1fe] {
            guest.domain.vcpu(0).write(address, 2, 0xffff).unwrap();
        }
        driver.window().write(reg::STATUS, 0);
        assert_eq!(driver.window().read(reg::STATUS), 0);
        guest.close();
        guest.destroy();
    }
}
