//! Storage that doesn't answer holds up its own guest, and nobody else for long.

mod common;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use common::{
    guest_kernel::{GuestKernel, Sharing},
    host::FakePlatform,
    ring_driver::{
        CONFIG_WCE, FEATURE_FLUSH, FLUSH, IN, IOERR, RingDriver, VERSION_1, WRITE, until,
    },
    watchdog::watchdog,
    window::{Window, reg},
};
use virtio_blk_dev::{Image, Sink, Source};
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::{
    Handles,
    guest::{Attachment, Guest, GuestError, MapBudget, Notices},
    node::{DeviceId, DeviceNode, Kind},
};
use xen_virtio_blk::{
    disks::Disks, metrics::render, nodes::DiskNodes, settings::DiskSettings, storage::Storage,
};

const BASE: u64 = 0x0200_0000;

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

const ID: DeviceId = DeviceId { domid: 1, kind: Kind::VirtioDisk, devid: 51712 };

fn disk(image: &Arc<StuckImage>) -> Attachment<Disks> {
    let storage = Storage::Other(Arc::clone(image) as Arc<dyn Image>);
    Attachment {
        node: DeviceNode::new(ID, BASE, 33, false),
        config: DiskNodes { image: PathBuf::from("/stuck"), read_only: false, discard: true },
        resources: (DiskSettings::default(), storage),
    }
}

fn start(domain: &FakeDomain, domid: u16, patience: Duration) -> Guest<Disks> {
    let handles = Handles::<FakePlatform> {
        model: domain.device_model(),
        memory: domain.foreign_memory(),
        grants: domain.grant_table(),
        events: domain.event_channel().unwrap(),
    };
    let notices = Notices::channel().unwrap().0;
    Guest::start(domid, handles, MapBudget::default(), notices, patience).unwrap().0
}

/// A guest that has asked for a flush, which its storage doesn't finish.
fn stuck(patience: Duration) -> (Guest<Disks>, FakeDomain, Arc<StuckImage>) {
    let domain = FakeDomain::builder().domid(1).build();
    let image = Arc::new(StuckImage::default());
    let guest = start(&domain, 1, patience);
    guest.attach(disk(&image)).unwrap();
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let window = Window::new(domain.vcpu(0), BASE);
    let mut driver = RingDriver::start(window, &kernel, VERSION_1 | FEATURE_FLUSH);
    let (header, status) = (driver.header(FLUSH, 0), driver.filled(&[0xff]));
    driver.chain(0, &[(header.device, 16, 0), (status.device, 1, WRITE)]);
    driver.offer(0);
    until("the flush to begin", || image.is_flushing());
    (guest, domain, image)
}

#[test]
fn a_disk_whose_storage_is_stuck_is_not_waited_for_without_end() {
    let _watchdog = watchdog();
    let (guest, _domain, image) = stuck(Duration::from_millis(50));
    let begin = Instant::now();
    let detaching = guest.detach(ID);
    assert!(!detaching.is_done(Duration::from_millis(50)));
    let other = guest.reserve(BASE + 0x200..=BASE + 0x3ff).unwrap_err();
    assert!(matches!(other, GuestError::Stuck { domid: 1, .. }), "{other}");
    drop(guest);
    assert!(begin.elapsed() < Duration::from_secs(5), "it was waited for");
    image.release();
}

#[test]
fn storage_that_answers_late_is_closed_then() {
    let _watchdog = watchdog();
    let (guest, domain, image) = stuck(Duration::from_secs(60));
    let late = Arc::clone(&image);
    let answering = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        late.release();
    });
    let detaching = guest.detach(ID);
    assert!(!detaching.is_done(Duration::ZERO), "its storage has not answered yet");
    assert!(detaching.is_done(Duration::from_secs(60)));
    drop(guest);
    answering.join().unwrap();
    assert_eq!(Arc::strong_count(&image), 1, "nobody holds the image");
    assert_eq!(domain.foreign_memory().live_mappings(), 0);
}

#[test]
fn a_cache_that_the_driver_switches_off_is_flushed_without_a_request() {
    let _watchdog = watchdog();
    let domain = FakeDomain::builder().domid(1).build();
    let image = Arc::new(StuckImage::default());
    let guest = start(&domain, 1, Duration::from_secs(60));
    guest.attach(disk(&image)).unwrap();
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let window = Window::new(domain.vcpu(0), BASE);
    let features = VERSION_1 | FEATURE_FLUSH | CONFIG_WCE;
    let mut driver = RingDriver::start(window.clone(), &kernel, features);
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
    let _watchdog = watchdog();
    let domain = FakeDomain::builder().domid(1).build();
    let image = Arc::new(StuckImage::default());
    let guest = start(&domain, 1, Duration::from_secs(60));
    let figures = [guest.attach(disk(&image)).unwrap()];
    let told = |value| {
        let text = render(&figures);
        text.contains(&format!(
            "xen_virtio_blk_flush_failed{{domid=\"1\",devid=\"51712\"}} {value}\n"
        ))
    };
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let features = VERSION_1 | FEATURE_FLUSH;
    assert!(told(0));
    image.fail();
    for _ in 0..2 {
        // Each resets the device first.
        let window = Window::new(domain.vcpu(0), BASE);
        let mut driver = RingDriver::start(window, &kernel, features);
        assert_eq!(driver.request(FLUSH, 0, None).0, IOERR);
        assert!(told(1));
        image.state.lock().unwrap().fails = false;
    }
}
