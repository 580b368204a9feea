//! The entropy device of the guide, `virtio-rng`, and guests of the fake hypervisor that use it.

mod common;
#[path = "../virtio-rng/main.rs"]
#[expect(dead_code, reason = "its main is for Xen")]
mod virtio_rng;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
};

use common::{
    guest_kernel::{GuestKernel, Sharing},
    host::{Disk as Nodes, Host},
    ring_driver::{RingDriver, VERSION_1, WRITE},
    virtio_driver::{ACCESS_PLATFORM, probe_entropy},
    watchdog::{Watchdog, watchdog},
    window::{MAGIC, Window, reg},
};
use virtio_rng::Entropy;
use xen_ioreq::fake::FakeDomain;
use xen_store::Store;
use xen_virtio_backend::{InlineDevices, guest::MapBudget};

const SHARINGS: [Sharing; 2] = [Sharing::Foreign, Sharing::Grant];

fn new_host() -> Host<InlineDevices<Entropy>> {
    Host::with_backend(MapBudget::Bytes(64 << 20), InlineDevices::new)
}

/// An entropy device as the toolstack describes it.
fn entropy(domid: u16, nth: u32, sharing: Sharing) -> Nodes {
    let mut nodes = Nodes::new(domid, nth, Path::new(""));
    nodes.kind = "virtio";
    let base = format!("{:#x}", nodes.base);
    nodes.with("type", "virtio,device4").with("base", base).without("params").sharing(sharing)
}

/// A guest with an entropy device.
struct Guest {
    host: Host<InlineDevices<Entropy>>,
    domain: FakeDomain,
    kernel: Arc<GuestKernel>,
    nodes: Nodes,
    _watchdog: Watchdog,
}

impl Guest {
    fn new(sharing: Sharing) -> Self {
        let mut host = new_host();
        let domain = host.create_guest(1);
        let kernel = GuestKernel::new(&domain, sharing);
        let nodes = entropy(1, 0, sharing);
        host.serve(&nodes);
        Self { host, domain, kernel, nodes, _watchdog: watchdog() }
    }

    fn window(&self) -> Window {
        self.host.window(&self.nodes)
    }

    fn driver(&self) -> RingDriver {
        let platform = if self.nodes.grants { ACCESS_PLATFORM } else { 0 };
        RingDriver::start(self.window(), &self.kernel, VERSION_1 | platform)
    }

    /// The toolstack closes the device.
    fn close(&mut self) {
        self.host.unplug(&self.nodes);
        self.host.settle();
        assert_eq!(self.host.state(&self.nodes).as_deref(), Some("6"));
    }

    fn destroy(&mut self) {
        self.host.destroy_guest(1);
        self.host.settle();
        assert_eq!(self.domain.foreign_memory().live_mappings(), 0);
        assert_eq!(self.domain.grants().live_mappings(), 0);
    }
}

#[test]
fn a_driver_gets_bytes_that_are_neither_constant_nor_the_same_again() {
    for sharing in SHARINGS {
        let mut guest = Guest::new(sharing);
        let mut driver = probe_entropy(guest.window(), &guest.kernel).expect("a device");
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
        assert!(guest.domain.irq_count(guest.nodes.irq) > 0, "the driver polls, but is told");
        drop(driver);
        assert_eq!(guest.kernel.pages_in_use(), 0);
        guest.close();
        guest.destroy();
    }
}

#[test]
fn the_window_answers_when_the_guest_may_run() {
    let _watchdog = watchdog();
    let mut host = new_host();
    let domain = host.create_guest(1);
    let first = Arc::<Mutex<Vec<_>>>::default();
    let (accesses, vcpu) = (Arc::clone(&first), domain.vcpu(1));
    let nodes = entropy(1, 0, Sharing::Foreign);
    let base = nodes.base;
    host.on_write(move |path, value| {
        if path.ends_with("/state") && value == b"2" {
            accesses.lock().unwrap().push(vcpu.read(base, 4));
        }
    });
    host.serve(&nodes);
    assert_eq!(*first.lock().unwrap(), [Ok(MAGIC.into())]);
    assert_eq!(host.window(&nodes).read(reg::DEVICE_ID), 4);
}

#[test]
fn the_window_of_a_device_that_was_closed_reads_all_ones_while_its_guest_goes_on() {
    for sharing in SHARINGS {
        let mut guest = Guest::new(sharing);
        let mut driver = guest.driver();
        let room = driver.buffer(64);
        driver.chain(0, &[(room.device, 64, WRITE)]);
        driver.offer(0);
        assert_eq!(driver.used().len, 64);
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
    let _watchdog = watchdog();
    let mut host = new_host();
    let guests =
        [1, 2].map(|domid| (entropy(domid, 0, Sharing::Foreign), host.create_guest(domid)));
    for (nodes, _) in &guests {
        host.serve(nodes);
    }
    let console = entropy(1, 1, Sharing::Foreign).with("type", "virtio,device3");
    host.plug(&console);
    host.settle();
    assert_eq!(host.state(&console).as_deref(), Some("1"));
    assert!(!host.window(&console).is_there(), "for its own backend to claim");
    for (nodes, domain) in &guests {
        let kernel = GuestKernel::new(domain, Sharing::Foreign);
        let mut driver = probe_entropy(host.window(nodes), &kernel).expect("a device");
        assert_eq!(driver.request_entropy(&mut [0; 16]).unwrap(), 16);
    }
    host.destroy_guest(1);
    host.settle();
    assert!(host.window(&guests[1].0).has_device(), "another guest's end is not its own");
}

#[test]
fn a_guest_that_is_destroyed_is_let_go_of() {
    let mut guest = Guest::new(Sharing::Foreign);
    assert_eq!(guest.window().read(reg::MAGIC), MAGIC);
    guest.destroy();
}

#[test]
fn a_device_whose_nodes_vanish_is_closed() {
    let mut guest = Guest::new(Sharing::Foreign);
    guest.host.store.rm(None, &guest.nodes.path()).unwrap();
    guest.host.settle();
    assert_eq!(guest.window().read(reg::MAGIC), u32::MAX);
    assert_eq!(guest.host.state(&guest.nodes), None, "and nothing is written there again");
    guest.destroy();
}

#[test]
fn nonsense_gets_nothing_and_harms_nobody() {
    for sharing in SHARINGS {
        let mut guest = Guest::new(sharing);
        let mut driver = guest.driver();
        let room = driver.buffer(64);
        for (nonsense, gets) in [
            (vec![(room.device, 64, 0)], 0),      // nothing to write to
            (vec![(0x10, 64, WRITE)], 0),         // no memory of the guest's
            (vec![(u64::MAX - 3, 64, WRITE)], 0), // nor there
            (vec![(room.device, 1, 0), (room.device, 1, WRITE)], 1), // odd, but allowed
            (vec![(room.device, 64, WRITE)], 64),
        ] {
            driver.chain(0, &nonsense);
            driver.offer(0);
            let used = driver.used();
            assert_eq!((used.id, used.len), (0, gets), "{nonsense:x?}");
        }
        for address in [guest.nodes.base, guest.nodes.base + 0x1fe] {
            guest.domain.vcpu(0).write(address, 2, 0xffff).unwrap();
        }
        driver.window.write(reg::STATUS, 0);
        assert_eq!(driver.window.read(reg::STATUS), 0);
        guest.close();
        guest.destroy();
    }
}
