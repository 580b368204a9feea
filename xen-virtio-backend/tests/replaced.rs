//! The process of a guest fails, and another one takes its place.

use std::{os::fd::OwnedFd, time::Duration};

use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};
use xen_ioreq::fake::{Access, FakeDomain};
use xen_virtio_backend::{
    Handshake, Inline, InlineDevices, MapBudget,
    fake::{DeviceConfig, FakeToolstack, Sharing, Watchdog, until},
    node::DeviceType,
};

const DEVICE_TYPE: DeviceType = DeviceType(4);

struct Idle<const VERSION: u8>;

impl<const VERSION: u8> VirtioDevice for Idle<VERSION> {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }
}

impl<const VERSION: u8> Inline for Idle<VERSION> {
    // The name is a part of the version.
    const NAME: &'static str = if VERSION == 1 { "idle" } else { "idle-next" };
    const DEVICE_TYPE: DeviceType = DEVICE_TYPE;

    fn build(_: Vec<OwnedFd>) -> Self {
        Self
    }
    fn request<M: GuestAddressSpace>(&mut self, _: u16, _: &Chain<M>) -> Option<u32> {
        Some(0)
    }
}

const LONG: Duration = Duration::from_secs(10);

/// How often a process has to fail to take an event before it gives its guest up.
const GIVEN_UP: u32 = 16;

/// An access to the device's window at which the process that answers it fails.
fn access_of_failing_process(domain: &FakeDomain, device: &DeviceConfig) -> Access {
    domain.hub().fail_next(xen_evtchn::fake::Call::Pending, GIVEN_UP, 5 /* EIO */);
    domain.vcpu(0).begin_read(device.base(), 4).unwrap()
}

#[test]
fn an_access_that_waits_when_a_process_fails_is_answered_by_the_one_in_its_place_and_by_no_third() {
    let _watchdog = Watchdog::start();
    let mut toolstack = FakeToolstack::new(InlineDevices::<Idle<1>>::new);
    let domain = toolstack.create_guest(1);
    let sharing = Sharing::Foreign;
    let device = DeviceConfig::generic(1, 0, DEVICE_TYPE).sharing(sharing);
    toolstack.serve(&device);

    let mut access = access_of_failing_process(&domain, &device);
    toolstack.settle_until(LONG, |toolstack| toolstack.state(&device).as_deref() == Some("6"));
    assert_eq!(access.wait(), Ok(0xffff_ffff));
    let error = toolstack.error(&device).expect("a reason");
    assert!(error.contains("has ended before it"), "{error}");
    toolstack.settle();
    assert_eq!((domain.servers(), domain.foreign_memory().live_mappings()), (1, 1));

    // The one in its place fails too.
    access = access_of_failing_process(&domain, &device);
    toolstack.settle_until(LONG, |_| domain.servers() == 0);
    toolstack.settle();
    assert!(access.poll().is_some_and(|answer| answer.is_err()));
    assert!(!toolstack.window(&device).is_there());
    assert_eq!(domain.foreign_memory().live_mappings(), 0);
}

#[test]
fn a_process_of_another_version_that_fails_is_replaced_and_its_devices_say_so() {
    let _watchdog = Watchdog::start();
    let mut toolstack = FakeToolstack::new(InlineDevices::<Idle<1>>::new);
    let domain = toolstack.create_guest(1);
    let device = DeviceConfig::generic(1, 0, DEVICE_TYPE).sharing(Sharing::Foreign);
    toolstack.serve(&device);
    toolstack.stop_backend();
    let (store, processes) = (toolstack.store.connect(0), toolstack.processes().clone());
    let next = InlineDevices::<Idle<2>>::new();
    let mut next = Handshake::new(store, processes, next, MapBudget::default()).unwrap();
    let mut settle = |done: &dyn Fn() -> bool| {
        until("the next supervisor has done it", || {
            next.handle_events().unwrap();
            done() && next.is_at_rest()
        });
    };
    settle(&|| true);
    assert!(toolstack.window(&device).has_device(), "the device is served on");
    assert_eq!(toolstack.state(&device).as_deref(), Some("2"));

    let access = access_of_failing_process(&domain, &device);
    settle(&|| toolstack.state(&device).as_deref() == Some("6"));
    assert_eq!(access.wait(), Ok(0xffff_ffff));
    let error = toolstack.error(&device).expect("a reason");
    assert!(error.contains("has ended before it"), "{error}");
    assert_eq!(domain.servers(), 1);

    toolstack.destroy_guest(1);
    settle(&|| domain.foreign_memory().live_mappings() == 0);
}
