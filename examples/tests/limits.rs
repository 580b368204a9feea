//! Rate limits of a disk that are changed while a guest uses it.

mod common;

use std::{thread, time::Duration};

use common::{
    block::{BlockRequests, IN, OK},
    host::{Host, sector_pattern},
};
use virtio_blk_dev::{Rate, RateLimits};
use virtio_mmio_dev::{PendingWrite, WriteOutcome, feature::VERSION_1};
use xen_virtio_backend::{
    self as backend, Backend, Device, MapBudget, Opened, Parts, Refusal,
    fake::{DeviceConfig, FakeDriver, GuestKernel, Sharing, Watchdog},
    node::{DeviceNode, DeviceType, NodeReader},
};
use xen_virtio_blk::{disk::Disk, disks::Disks, figures::Figures, settings::Settings};

const UNLIMITED: RateLimits = RateLimits { ops: None, bytes: None };
/// One request of a sector at once, and the next one after nine minutes.
const SLOW: RateLimits = RateLimits { ops: None, bytes: Some(Rate { per_second: 1, burst: 512 }) };

/// A disk that is limited or not, in turn, each time that it is refreshed.
struct Switched<H: backend::Host> {
    disk: Disk<H>,
    slow: bool,
}

impl<H: backend::Host> Device for Switched<H> {
    type Figures = Figures;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.disk.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> WriteOutcome {
        self.disk.write(offset, data)
    }

    fn is_pending(&mut self, write: PendingWrite) -> bool {
        self.disk.is_pending(write)
    }

    fn kick(&mut self, queue: u16) {
        self.disk.kick(queue);
    }

    fn begin_stop(&mut self) {
        self.disk.begin_stop();
    }

    fn is_stopped(&self) -> bool {
        self.disk.is_stopped()
    }

    fn refresh(&mut self) {
        self.slow = !self.slow;
        self.disk.set_limits(if self.slow { SLOW } else { UNLIMITED });
    }

    fn figures(&self) -> Figures {
        self.disk.figures()
    }
}

/// Serves such disks.
struct SwitchedDisks(Disks);

impl Backend for SwitchedDisks {
    const NAME: &'static str = "switched";

    type Config = <Disks as Backend>::Config;
    type Resources = <Disks as Backend>::Resources;
    type Figures = Figures;
    type Setup = <Disks as Backend>::Setup;
    type Shared = <Disks as Backend>::Shared;
    type Loaded = <Disks as Backend>::Loaded;
    type Device<H: backend::Host> = Switched<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        self.0.claims(device_type)
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<Self::Config, Refusal> {
        self.0.read(node)
    }

    fn open(
        &self,
        node: &DeviceNode,
        nodes: &Self::Config,
    ) -> Result<Opened<Self::Resources>, Refusal> {
        self.0.open(node, nodes)
    }

    fn setup(&self) -> Self::Setup {
        self.0.setup()
    }

    fn share(setup: Self::Setup) -> Self::Shared {
        Disks::share(setup)
    }

    fn load(
        shared: &Self::Shared,
        nodes: &Self::Config,
        opened: Opened<Self::Resources>,
    ) -> Result<Self::Loaded, Refusal> {
        Disks::load(shared, nodes, opened)
    }

    fn build<H: backend::Host>(
        node: &DeviceNode,
        nodes: Self::Config,
        loaded: Self::Loaded,
        parts: Parts<H>,
    ) -> Result<Switched<H>, Refusal> {
        let disk = Disks::build(node, nodes, loaded, parts)?;
        Ok(Switched { disk, slow: false })
    }
}

/// Reads a sector. `meanwhile` is called when the guest waits for its data.
fn read(driver: &mut FakeDriver, sector: u64, meanwhile: impl FnOnce()) {
    let page = driver.filled(&[0; 512]);
    let data = Some((page.device, 512));
    thread::scope(|scope| {
        let request = scope.spawn(|| driver.request(IN, sector, data));
        thread::sleep(Duration::from_millis(50));
        meanwhile();
        assert_eq!(request.join().unwrap(), (OK, 513));
    });
    assert_eq!(driver.get(page.guest), sector_pattern(sector));
    driver.release(page);
}

#[test]
fn a_limit_is_set_and_lifted_while_a_disk_is_served_that_began_without_one() {
    let _watchdog = Watchdog::start();
    let mut host =
        Host::with_backend(MapBudget::default(), || SwitchedDisks(Disks::new(Settings::default())));
    let domain = host.create_guest(1);
    let disk = DeviceConfig::disk(1, 0, host.image("disk.img", 1 << 20));
    host.serve(&disk);
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let mut driver = FakeDriver::start(host.window(&disk), &kernel, VERSION_1);
    for sector in 0..3 {
        read(&mut driver, sector, || {});
    }
    host.refresh();
    read(&mut driver, 3, || {});
    // It sleeps until the old limit allows it, unless it is woken.
    read(&mut driver, 4, || host.refresh());
    read(&mut driver, 5, || {});
}
