//! The entropy device of the guide, `virtio-rng`, and guests of the fake hypervisor that use it.

mod common;
#[path = "../virtio-rng/main.rs"]
#[expect(dead_code, reason = "its main is for Xen")]
mod virtio_rng;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use common::{
    guest_kernel::{GuestKernel, Sharing},
    host::WatchedStore,
    ring_driver::{RingDriver, VERSION_1, WRITE, until},
    virtio_driver::{ACCESS_PLATFORM, probe_entropy},
    watchdog::{Watchdog, watchdog},
    window::{MAGIC, Window, reg},
};
use xen_ioreq::fake::{Access, FakeDomain};
use xen_store::{Store, StoreExt, XenbusState, fake::FakeStore};

const DIR: &str = "/local/domain/0/backend/virtio/1/0";
const BASE: u64 = 0x0200_0000;
const IRQ: u32 = 33;

/// A guest with an entropy device, served on a thread.
struct Guest {
    /// The toolstack's connection.
    store: FakeStore,
    domain: FakeDomain,
    kernel: Arc<GuestKernel>,
    /// What the window's first word read as the guest was allowed to run.
    first: Option<u64>,
    served: Option<JoinHandle<anyhow::Result<u64>>>,
    _watchdog: Watchdog,
}

impl Guest {
    fn new(sharing: Sharing) -> Self {
        let store = FakeStore::new();
        store.introduce_domain(1);
        let domain = FakeDomain::builder().domid(1).vcpus(2).build();
        let kernel = GuestKernel::new(&domain, sharing);
        let first = Arc::<Mutex<Option<Access>>>::default();
        let backend = {
            let (domain, first) = (domain.clone(), Arc::clone(&first));
            WatchedStore::new(store.connect(0), move |path, value| {
                if path.ends_with("/state") && value == b"2" {
                    *first.lock().unwrap() = domain.vcpu(1).begin_read(BASE, 4).ok();
                }
            })
        };
        let its = domain.clone();
        let served = thread::spawn(move || {
            let nodes = virtio_rng::find(&backend)?;
            let handles =
                (its.device_model(), its.foreign_memory(), its.grant_table(), its.event_channel()?);
            virtio_rng::serve(&backend, &nodes, handles)
        });
        let mut guest = Self {
            store,
            domain,
            kernel,
            first: None,
            served: Some(served),
            _watchdog: watchdog(),
        };
        guest.plug(DIR, "virtio,device4", sharing);
        until("InitWait", || guest.state() == Some(XenbusState::InitWait));
        let first = first.lock().unwrap().take();
        guest.first = first.map(|access| access.wait().unwrap());
        guest
    }

    /// The toolstack adds a device, as libxl does: all nodes in one transaction.
    fn plug(&mut self, dir: &str, kind: &str, sharing: Sharing) {
        let grants = if sharing == Sharing::Grant { "1" } else { "0" };
        let base = format!("{BASE:#x}");
        let nodes = [
            ("type", kind),
            ("base", &base),
            ("irq", "33"),
            ("transport", "mmio"),
            ("grant_usage", grants),
            ("online", "1"),
            ("state", "1"),
        ];
        let plugged = self.store.transaction(|tx| {
            nodes.iter().try_for_each(|(node, value)| {
                self.store.write(Some(tx), &format!("{dir}/{node}"), value.as_bytes())
            })
        });
        plugged.unwrap();
    }

    fn state(&self) -> Option<XenbusState> {
        self.store.xenbus_state(None, DIR).unwrap()
    }

    fn window(&self) -> Window {
        Window::new(self.domain.vcpu(0), BASE)
    }

    /// What the backend says at its end: how many bytes it gave.
    fn end(&mut self) -> anyhow::Result<u64> {
        let served = self.served.take().expect("ended once");
        let ended = served.join().expect("no panic");
        assert_eq!(self.domain.foreign_memory().live_mappings(), 0);
        assert_eq!(self.domain.grants().live_grants(), 0);
        ended
    }

    /// The toolstack closes the device, and waits for the backend's word.
    fn close(&self) {
        self.store.write(None, &format!("{DIR}/state"), b"5").unwrap();
        until("Closed", || self.state() == Some(XenbusState::Closed));
    }

    /// The guest ends.
    fn destroy(&mut self) -> anyhow::Result<u64> {
        self.domain.destroy();
        self.store.release_domain(1);
        self.end()
    }

    /// As the toolstack ends a guest.
    fn unplug(&mut self) -> anyhow::Result<u64> {
        self.close();
        self.destroy()
    }
}

#[test]
fn a_driver_gets_bytes_that_are_neither_constant_nor_the_same_again() {
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut guest = Guest::new(sharing);
        let mut driver = probe_entropy(guest.window(), &guest.kernel).expect("a device");
        let mut got = 0;
        let mut read = |buffer: &mut [u8]| {
            let count = driver.request_entropy(buffer).unwrap();
            got += count as u64;
            count
        };
        let mut seen = BTreeSet::new();
        for _ in 0..64 {
            let mut buffer = [0; 64];
            assert_eq!(read(&mut buffer), 64, "{sharing:?}");
            assert!(buffer.iter().collect::<BTreeSet<_>>().len() > 16, "{buffer:?}");
            assert!(seen.insert(buffer), "twice the same");
        }
        // A large one gets a part, and the rest stays as the driver's fresh pages are.
        let mut buffer = [0xff; 4096];
        assert_eq!(read(&mut buffer), 256);
        assert_eq!(buffer[256..], [0; 4096 - 256]);
        assert!(guest.domain.irq_count(IRQ) > 0, "the driver polls, but is told");
        drop(driver);
        assert_eq!(guest.kernel.pages_in_use(), 0);
        assert_eq!(guest.unplug().unwrap(), got, "{sharing:?}");
    }
}

#[test]
fn the_window_answers_when_the_guest_may_run() {
    let mut guest = Guest::new(Sharing::Foreign);
    assert_eq!(guest.first, Some(MAGIC.into()));
    assert_eq!(guest.window().read(reg::DEVICE_ID), 4);
    guest.unplug().unwrap();
}

#[test]
fn the_window_of_a_device_that_was_closed_reads_all_ones_while_its_guest_goes_on() {
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut guest = Guest::new(sharing);
        let platform = if sharing == Sharing::Grant { ACCESS_PLATFORM } else { 0 };
        let mut driver = RingDriver::start(guest.window(), &guest.kernel, VERSION_1 | platform);
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
        guest.store.release_domain(2);
        assert_eq!(
            guest.window().read(reg::STATUS),
            u32::MAX,
            "another guest's end is not its own"
        );
        assert_eq!(guest.state(), Some(XenbusState::Closed));
        assert_eq!(guest.destroy().unwrap(), 64, "{sharing:?}");
    }
}

#[test]
fn other_devices_are_passed_over() {
    let mut guest = Guest::new(Sharing::Foreign);
    guest.unplug().unwrap();
    guest.store.rm(None, DIR).unwrap();
    guest.plug("/local/domain/0/backend/virtio/2/0", "virtio,device2", Sharing::Foreign);
    guest.plug("/local/domain/0/backend/virtio/3/0", "virtio,device4", Sharing::Foreign);
    guest.store.write(None, "/local/domain/0/backend/virtio/3/0/state", b"2").unwrap();
    let store = guest.store.connect(0);
    let found = thread::spawn(move || virtio_rng::find(&store).map(|nodes| nodes.dir));
    thread::sleep(Duration::from_millis(50));
    assert!(!found.is_finished());
    guest.plug(DIR, "virtio,device4", Sharing::Foreign);
    assert_eq!(found.join().unwrap().unwrap(), "backend/virtio/1/0");
}

#[test]
fn a_guest_that_is_destroyed_is_the_end() {
    let mut guest = Guest::new(Sharing::Foreign);
    assert_eq!(guest.window().read(reg::MAGIC), MAGIC);
    assert_eq!(guest.destroy().unwrap(), 0);
    assert_eq!(guest.state(), Some(XenbusState::InitWait), "the toolstack's to remove");
}

#[test]
fn a_device_whose_nodes_vanish_is_closed() {
    let mut guest = Guest::new(Sharing::Foreign);
    guest.store.rm(None, DIR).unwrap();
    until("all ones", || guest.window().read(reg::MAGIC) == u32::MAX);
    assert_eq!(guest.destroy().unwrap(), 0);
    assert_eq!(guest.state(), None, "and nothing is written there again");
}

#[test]
fn nonsense_gets_nothing_and_harms_nobody() {
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let mut guest = Guest::new(sharing);
        let platform = if sharing == Sharing::Grant { ACCESS_PLATFORM } else { 0 };
        let mut driver = RingDriver::start(guest.window(), &guest.kernel, VERSION_1 | platform);
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
        for address in [BASE, BASE + 0x1fe] {
            guest.domain.vcpu(0).write(address, 2, 0xffff).unwrap();
        }
        driver.window.write(reg::STATUS, 0);
        assert_eq!(driver.window.read(reg::STATUS), 0);
        assert_eq!(guest.unplug().unwrap(), 65);
    }
}
