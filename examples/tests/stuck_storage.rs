//! Storage that doesn't answer holds up its own guest, and nobody else for long.

mod common;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use common::block::{BlockRequests, CONFIG_WCE, FEATURE_FLUSH, FLUSH, IN, IOERR, OK};
use virtio_blk_dev::{Image, Sink, Source};
use virtio_mmio_dev::WINDOW_SIZE;
use virtio_mmio_dev::feature::VERSION_1;
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    Backend, Built, Host, Parts, Refusal,
    fake::{FakeDriver, FakeXen, GuestKernel, Sharing, WRITE, Watchdog, Window, reg, until},
    guest::{Attachment, Command, End, Event, EventBox, Guest, MapBudget},
    node::{DeviceId, DeviceNode, DeviceType, Kind, NodeReader},
};
use xen_virtio_blk::{
    disk::Disk, figures::Figures, metrics::render, nodes::DiskNodes, settings::DiskSettings,
    storage::Storage,
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

/// Disks of images that aren't opened.
struct StuckDisks;

impl Backend for StuckDisks {
    const NAME: &'static str = "stuck-disks";

    type Config = DiskNodes;
    type Resources = Arc<StuckImage>;
    type Figures = Figures;
    type Device<H: Host> = Disk<H>;

    fn claims(&self, _: DeviceType) -> bool {
        true
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<DiskNodes, Refusal> {
        Ok(DiskNodes::read(node)?)
    }

    fn open(&self, _: &DeviceNode, _: &DiskNodes) -> Result<Arc<StuckImage>, Refusal> {
        Ok(Arc::default())
    }

    fn build<H: Host>(
        node: &DeviceNode,
        nodes: DiskNodes,
        image: Arc<StuckImage>,
        parts: Parts<H>,
    ) -> Result<Built<Disk<H>, Figures>, Refusal> {
        let device =
            Disk::new(node, &nodes, DiskSettings::default(), Storage::Other(image), parts)?;
        let figures = device.figures();
        Ok(Built { device, figures })
    }
}

fn id_of(nth: u32) -> DeviceId {
    DeviceId { domid: 1, kind: Kind::VirtioDisk, devid: 51712 + 16 * nth }
}

fn base_of(nth: u32) -> u64 {
    0x0200_0000 + u64::from(nth) * WINDOW_SIZE
}

fn disk(nth: u32, image: &Arc<StuckImage>) -> Attachment<StuckDisks> {
    Attachment {
        node: DeviceNode::new(id_of(nth), base_of(nth), 33 + nth, false),
        config: DiskNodes { image: PathBuf::from("/stuck"), read_only: false, discard: true },
        resources: Arc::clone(image),
    }
}

/// A guest that is served, and what it has told.
struct Served {
    guest: Option<Guest<StuckDisks>>,
    events: EventBox<StuckDisks>,
    domain: FakeDomain,
}

impl Served {
    fn new() -> Self {
        let domain = FakeDomain::builder().domid(1).vcpus(2).build();
        let xen = FakeXen::default();
        xen.add(domain.clone());
        let handles = xen.open(1).unwrap();
        let (sender, events) = EventBox::channel().unwrap();
        let (guest, _) = Guest::start(1, handles, MapBudget::default(), sender).unwrap();
        Self { guest: Some(guest), events, domain }
    }

    fn send(&self, command: Command<StuckDisks>) {
        self.guest.as_ref().expect("a guest that is served").send(command);
    }

    /// The next event, if there is one in this time.
    fn event(&mut self, timeout: Duration) -> Option<Event<StuckDisks>> {
        let mut events = self.events.take(timeout);
        assert!(events.len() < 2, "more than was asked for");
        events.pop()
    }

    fn attach(&mut self, nth: u32, image: &Arc<StuckImage>) -> Arc<Figures> {
        self.send(Command::Attach(Box::new(disk(nth, image))));
        match self.event(LONG) {
            Some(Event::Attached(id, Ok(figures))) if id == id_of(nth) => figures,
            _ => panic!("the disk should be attached"),
        }
    }

    /// Its driver of a disk.
    fn driver(&self, nth: u32, features: u64) -> FakeDriver {
        let kernel = GuestKernel::new(&self.domain, Sharing::Foreign);
        FakeDriver::start(self.window(nth), &kernel, VERSION_1 | features)
    }

    fn window(&self, nth: u32) -> Window {
        Window::new(&self.domain, nth, base_of(nth), 33 + nth)
    }

    /// The disk is let go of.
    fn is_detached(&mut self, nth: u32, timeout: Duration) -> bool {
        matches!(self.event(timeout), Some(Event::Detached(id)) if id == id_of(nth))
    }
}

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);
const NOT_YET: Duration = Duration::from_millis(50);

/// A guest that has asked its disk 0 for a flush, which the storage doesn't finish.
fn stuck() -> (Served, FakeDriver, Arc<StuckImage>) {
    let (mut it, image) = (Served::new(), Arc::new(StuckImage::default()));
    it.attach(0, &image);
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
    it.send(Command::Detach(id_of(0)));
    assert!(!it.is_detached(0, NOT_YET));
    // Meanwhile another one comes and goes.
    it.attach(1, &Arc::default());
    assert_eq!(it.window(1).read(reg::MAGIC), reg::MAGIC_VALUE);
    it.send(Command::Detach(id_of(1)));
    assert!(it.is_detached(1, LONG));
    it.guest = None;
    assert!(begin.elapsed() < Duration::from_secs(30), "it was waited for");
    assert!(it.event(NOT_YET).is_none(), "it has not ended yet");
    image.release();
    assert!(matches!(it.event(LONG), Some(Event::Ended(1, End::Stopped))));
}

#[test]
fn storage_that_answers_late_is_closed_then() {
    let _watchdog = Watchdog::start();
    let (mut it, driver, image) = stuck();
    it.send(Command::Detach(id_of(0)));
    assert!(!it.is_detached(0, NOT_YET), "its storage has not answered yet");
    assert_eq!(it.window(0).read(reg::MAGIC), u32::MAX, "nothing is there any more");
    image.release();
    assert!(it.is_detached(0, LONG));
    assert_eq!(Arc::strong_count(&image), 1, "nobody holds the image");
    drop(driver);
    it.guest = None;
    assert!(matches!(it.event(LONG), Some(Event::Ended(1, End::Stopped))));
    assert_eq!(it.domain.foreign_memory().live_mappings(), 0);
}

#[test]
fn a_reset_of_a_disk_whose_storage_is_stuck_holds_up_no_other_disk_of_its_guest() {
    let _watchdog = Watchdog::start();
    let (mut it, _driver, image) = stuck();
    let other = Arc::new(StuckImage::default());
    other.release();
    it.attach(1, &other);
    let mut reset = it.domain.vcpu(0).begin_write(base_of(0) + reg::STATUS, 4, 0).unwrap();
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
    let mut reset = it.domain.vcpu(0).begin_write(base_of(0) + reg::STATUS, 4, 0).unwrap();
    it.send(Command::Detach(id_of(0)));
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
    it.attach(0, &image);
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
fn a_flush_that_failed_is_in_the_metrics_as_long_as_the_image_is_open() {
    let _watchdog = Watchdog::start();
    let (mut it, image) = (Served::new(), Arc::new(StuckImage::default()));
    let figures = [it.attach(0, &image)];
    let told = |value| {
        let text = render(&figures);
        text.contains(&format!(
            "xen_virtio_blk_flush_failed{{domid=\"1\",devid=\"51712\"}} {value}\n"
        ))
    };
    assert!(told(0));
    image.fail();
    for _ in 0..2 {
        // Each resets the device first.
        let mut driver = it.driver(0, FEATURE_FLUSH);
        assert_eq!(driver.request(FLUSH, 0, None).0, IOERR);
        assert!(told(1));
        image.state.lock().unwrap().fails = false;
    }
}
