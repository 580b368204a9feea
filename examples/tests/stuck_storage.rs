//! Storage that doesn't answer holds up its own guest, and nobody else for long.

mod common;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::block::{BlockRequests, CONFIG_WCE, FEATURE_FLUSH, FLUSH, IN, IOERR, OK};
use virtio_blk_dev::{Image, Sink, Source};
use virtio_dev::feature::VERSION_1;
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    self as backend, Backend, Opened, Parts, Refusal,
    fake::{
        DeviceConfig, FakeDriver, FakeToolstack, GuestKernel, Sharing, WRITE, Watchdog, Window,
        reg, until,
    },
    node::{DeviceNode, DeviceType, NodeReader},
};
use xen_virtio_blk::{
    disk::Disk, figures::Figures, metrics::render, nodes::DiskNodes, order::Order,
    settings::DiskSettings, storage::Storage,
};

/// An image whose flushes wait until somebody lets them go.
#[derive(Default)]
struct StuckImage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    flushing: bool,
    released: bool,
    fails: bool,
}

impl StuckImage {
    fn is_flushing(&self) -> bool {
        self.state.lock().unwrap().flushing
    }

    fn fail(&self) {
        self.state.lock().unwrap().fails = true;
        self.release();
    }

    fn release(&self) {
        self.state.lock().unwrap().released = true;
        self.changed.notify_all();
    }
}

impl Image for StuckImage {
    fn capacity(&self) -> u64 {
        4096
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_vectored_at(&self, _: Sink<'_>, _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_vectored_at(&self, _: Source<'_>, _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.flushing = true;
        let state = self.changed.wait_while(state, |state| !state.released).unwrap();
        if state.fails { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

/// The images that there are. A process of a guest finds its there, as it is a thread.
static IMAGES: Mutex<BTreeMap<PathBuf, Arc<StuckImage>>> = Mutex::new(BTreeMap::new());

/// Serves disks of such images.
struct StuckDisks;

impl Backend for StuckDisks {
    const NAME: &'static str = "stuck";

    type Config = DiskNodes;
    type Resources = ();
    type Figures = Figures;
    type Order = Order;
    type Setup = ();
    type Shared = ();
    type Loaded = Arc<StuckImage>;
    type Device<H: backend::Host> = Disk<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == DeviceType::BLOCK
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<DiskNodes, Refusal> {
        Ok(DiskNodes::read(node)?)
    }

    fn open(&self, _: &DeviceNode, _: &DiskNodes) -> Result<Opened<()>, Refusal> {
        Ok(Opened { resources: (), files: Vec::new() })
    }

    fn setup(&self) {}

    fn share((): ()) {}

    fn load((): &(), nodes: &DiskNodes, _: Opened<()>) -> Result<Arc<StuckImage>, Refusal> {
        Ok(Arc::clone(&IMAGES.lock().unwrap()[&nodes.image]))
    }

    fn build<H: backend::Host>(
        node: &DeviceNode,
        nodes: DiskNodes,
        image: Arc<StuckImage>,
        parts: Parts<H>,
    ) -> Result<Disk<H>, Refusal> {
        Disk::new(node, &nodes, DiskSettings::default(), Storage::Other(image), parts)
    }
}

/// A guest with such disks.
struct Served {
    toolstack: FakeToolstack<StuckDisks>,
    domain: FakeDomain,
    disks: Vec<DeviceConfig>,
}

impl Served {
    fn new() -> Self {
        let toolstack = FakeToolstack::new(|| StuckDisks);
        let domain = toolstack.create_guest(1);
        Self { toolstack, domain, disks: Vec::new() }
    }

    /// Serves it as the next disk.
    fn attach(&mut self, image: &Arc<StuckImage>) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = format!("/stuck/{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let disk = DeviceConfig::disk(1, self.disks.len() as u32, &path);
        IMAGES.lock().unwrap().insert(path.into(), Arc::clone(image));
        self.toolstack.add_device(&disk);
        self.toolstack
            .settle_until(LONG, |toolstack| toolstack.state(&disk).as_deref() == Some("2"));
        self.disks.push(disk);
    }

    /// Has a disk detached, and its image forgotten.
    fn detach(&mut self, nth: usize) {
        self.toolstack.close_device(&self.disks[nth]);
        let path = std::str::from_utf8(self.disks[nth].node("params").unwrap()).unwrap();
        IMAGES.lock().unwrap().remove(&PathBuf::from(path));
    }

    /// Whether the disk is let go of within this time.
    fn is_detached(&mut self, nth: usize, timeout: Duration) -> bool {
        let begin = Instant::now();
        loop {
            self.toolstack.handle_events().unwrap();
            if self.toolstack.state(&self.disks[nth]).as_deref() == Some("6") {
                return true;
            }
            if begin.elapsed() > timeout {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its driver of a disk.
    fn driver(&self, nth: usize, features: u64) -> FakeDriver {
        let kernel = GuestKernel::new(&self.domain, Sharing::Foreign);
        FakeDriver::start(self.window(nth), &kernel, VERSION_1 | features)
    }

    /// Each from a vCPU of its own: one may be waiting for an answer.
    fn window(&self, nth: usize) -> Window {
        let disk = &self.disks[nth];
        Window::new(&self.domain, nth as u32, disk.base(), disk.irq())
    }
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
const NOT_YET: Duration = Duration::from_millis(50);

/// A guest that has asked its disk 0 for a flush, which the storage doesn't finish.
fn stuck() -> (Served, FakeDriver, Arc<StuckImage>) {
    let (mut it, image) = (Served::new(), Arc::new(StuckImage::default()));
    it.attach(&image);
    let mut driver = it.driver(0, FEATURE_FLUSH);
    let (header, status) = (driver.header(FLUSH, 0), driver.filled(&[0xff]));
    driver.chain(0, &[(header.device, 16, 0), (status.device, 1, WRITE)]);
    driver.offer(0);
    until("the flush to begin", || image.is_flushing());
    (it, driver, image)
}

#[test]
fn a_disk_whose_storage_is_stuck_is_not_waited_for_without_end() {
    let _watchdog = Watchdog::start();
    let (mut it, _driver, image) = stuck();
    let begin = Instant::now();
    it.detach(0);
    assert!(!it.is_detached(0, NOT_YET));
    // Meanwhile another one comes and goes.
    it.attach(&Arc::default());
    assert_eq!(it.window(1).read(reg::MAGIC), reg::MAGIC_VALUE);
    it.detach(1);
    assert!(it.is_detached(1, LONG));
    it.toolstack.destroy_guest(1);
    assert!(!it.is_detached(0, NOT_YET), "it has not ended yet");
    assert!(begin.elapsed() < Duration::from_secs(30), "it was waited for");
    image.release();
    assert!(it.is_detached(0, LONG));
}

#[test]
fn storage_that_answers_late_is_closed_then() {
    let _watchdog = Watchdog::start();
    let (mut it, driver, image) = stuck();
    it.detach(0);
    assert!(!it.is_detached(0, NOT_YET), "its storage has not answered yet");
    assert_eq!(it.window(0).read(reg::MAGIC), u32::MAX, "nothing is there any more");
    image.release();
    assert!(it.is_detached(0, LONG));
    assert_eq!(Arc::strong_count(&image), 1, "nobody holds the image");
    drop(driver);
    assert_eq!(it.domain.foreign_memory().live_mappings(), 1, "the page of the IOREQ server");
    it.toolstack.stop_all();
    assert_eq!(it.domain.foreign_memory().live_mappings(), 0);
}

#[test]
fn a_reset_of_a_disk_whose_storage_is_stuck_holds_up_no_other_disk_of_its_guest() {
    let _watchdog = Watchdog::start();
    let (mut it, _driver, image) = stuck();
    let other = Arc::new(StuckImage::default());
    other.release();
    it.attach(&other);
    let mut reset = it.domain.vcpu(0).begin_write(it.disks[0].base() + reg::STATUS, 4, 0).unwrap();
    assert_eq!(reset.poll(), None);
    let mut driver = it.driver(1, FEATURE_FLUSH);
    assert_eq!(driver.request(FLUSH, 0, None).0, OK);
    assert_eq!(reset.poll(), None, "memory of the guest's is still in use");
    image.release();
    assert!(reset.wait().is_ok());
    assert_eq!(it.window(0).read(reg::STATUS), 0);
}

#[test]
fn a_reset_of_a_disk_that_is_detached_meanwhile_is_not_answered_before_its_storage_has_answered() {
    let _watchdog = Watchdog::start();
    let (mut it, _driver, image) = stuck();
    let mut reset = it.domain.vcpu(0).begin_write(it.disks[0].base() + reg::STATUS, 4, 0).unwrap();
    it.detach(0);
    assert!(!it.is_detached(0, NOT_YET));
    assert_eq!(reset.poll(), None, "memory of the guest's is still in use");
    image.release();
    assert!(it.is_detached(0, LONG));
    assert!(reset.wait().is_ok());
}

#[test]
fn a_cache_that_the_driver_switches_off_is_flushed_without_a_request() {
    let _watchdog = Watchdog::start();
    let (mut it, image) = (Served::new(), Arc::new(StuckImage::default()));
    it.attach(&image);
    let window = it.window(0);
    let mut driver = it.driver(0, FEATURE_FLUSH | CONFIG_WCE);
    // Its thread has been at work, and has had time to fall asleep.
    let page = driver.buffer(512);
    assert_eq!(driver.request(IN, 0, Some((page.device, 512))).0, IOERR);
    std::thread::sleep(Duration::from_millis(50));
    // `writeback` (virtio 1.2 §5.2.4).
    assert_eq!(window.read_sized(reg::CONFIG + 32, 1), 1);
    assert!(!image.is_flushing());
    window.write_sized(reg::CONFIG + 32, 1, 0);
    until("the flush", || image.is_flushing());
    image.release();
}

#[test]
fn for_how_long_storage_has_not_answered_is_in_the_metrics() {
    let _watchdog = Watchdog::start();
    let (mut it, _driver, image) = stuck();
    let mut stalled = || {
        let text = render(&it.toolstack.status());
        let series = |line: &&str| line.starts_with("xen_virtio_blk_stalled_seconds{");
        let line = text.lines().find(series).unwrap();
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let begin = stalled();
    std::thread::sleep(NOT_YET);
    assert!(stalled() >= begin + NOT_YET.as_secs_f64());
    image.release();
    until("the answer", || stalled() == 0.0);
}

#[test]
fn a_flush_that_failed_is_in_the_metrics_as_long_as_the_image_is_open() {
    let _watchdog = Watchdog::start();
    let (mut it, image) = (Served::new(), Arc::new(StuckImage::default()));
    it.attach(&image);
    let told = |it: &mut Served, value| {
        let text = render(&it.toolstack.status());
        let told = text.lines().find(|line| line.starts_with("xen_virtio_blk_flush_failed{"));
        told.unwrap().ends_with(&format!("}} {value}"))
    };
    assert!(told(&mut it, 0));
    image.fail();
    for _ in 0..2 {
        // Each resets the device first.
        let mut driver = it.driver(0, FEATURE_FLUSH);
        assert_eq!(driver.request(FLUSH, 0, None).0, IOERR);
        drop(driver);
        assert!(told(&mut it, 1));
        image.state.lock().unwrap().fails = false;
    }
}
