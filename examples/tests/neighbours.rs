//! What goes wrong with one disk, or with one guest, is no other guest's trouble.

mod common;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    host::{Host, sector_pattern},
    virtio_driver::probe,
};
use serde::{Deserialize, Serialize, Serializer};
use virtio_blk_dev::RawImage;
use xen_virtio_backend::{
    self as backend, Backend, MapBudget, Opened, Parts, Refusal,
    fake::{DeviceConfig, FakeToolstack, GuestKernel, Sharing, Watchdog, reg, until},
    node::{DeviceNode, DeviceType, NodeReader},
};
use xen_virtio_blk::{
    disk, disks::Disks, figures::Figures, nodes::DiskNodes, order::Order, settings::Settings,
};

/// Opened, when somebody says so.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Disks, of which those with `slow` in the image's name open when the gate does, those with `stuck` in it close when the
/// other gate opens, unless they are attached, and those with `panic` in it make the guest's thread panic.
struct Troubled {
    disks: Disks,
    gate: Gate,
    close_gate: Gate,
}

/// What is known of an image that may not close before its gate opens, unless its guest's process has got it.
#[derive(Serialize, Deserialize)]
struct Sticky {
    resources: <Disks as Backend>::Resources,
    #[serde(serialize_with = "let_go", skip_deserializing)]
    gate: Mutex<Option<Gate>>,
}

/// What is sent to a guest's process is closed there.
fn let_go<S: Serializer>(gate: &Mutex<Option<Gate>>, serializer: S) -> Result<S::Ok, S::Error> {
    *gate.lock().unwrap() = None;
    serializer.serialize_unit()
}

impl Drop for Sticky {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.get_mut().unwrap() {
            gate.wait();
        }
    }
}

fn names(nodes: &DiskNodes, word: &str) -> bool {
    nodes.image.file_name().is_some_and(|name| name.to_string_lossy().contains(word))
}

impl Backend for Troubled {
    const NAME: &'static str = "troubled";

    type Config = DiskNodes;
    type Resources = Sticky;
    type Figures = Figures;
    type Order = Order;
    type Setup = <Disks as Backend>::Setup;
    type Shared = <Disks as Backend>::Shared;
    type Loaded = <Disks as Backend>::Loaded;
    type Device<H: backend::Host> = disk::Disk<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        self.disks.claims(device_type)
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<DiskNodes, Refusal> {
        self.disks.read(node)
    }

    fn open(&self, node: &DeviceNode, nodes: &DiskNodes) -> Result<Opened<Sticky>, Refusal> {
        if names(nodes, "slow") {
            self.gate.wait();
        }
        let gate = names(nodes, "stuck").then(|| self.close_gate.clone());
        let Opened { resources, files } = self.disks.open(node, nodes)?;
        Ok(Opened { resources: Sticky { resources, gate: Mutex::new(gate) }, files })
    }

    fn setup(&self) -> Self::Setup {
        self.disks.setup()
    }

    fn share(setup: Self::Setup) -> Self::Shared {
        Disks::share(setup)
    }

    fn load(
        shared: &Self::Shared,
        nodes: &DiskNodes,
        opened: Opened<Sticky>,
    ) -> Result<Self::Loaded, Refusal> {
        let Opened { resources, files } = opened;
        let resources = resources.resources.clone();
        Disks::load(shared, nodes, Opened { resources, files })
    }

    fn build<H: backend::Host>(
        node: &DeviceNode,
        nodes: DiskNodes,
        loaded: Self::Loaded,
        parts: Parts<H>,
    ) -> Result<disk::Disk<H>, Refusal> {
        assert!(!names(&nodes, "panic"), "a fault on purpose");
        Disks::build(node, nodes, loaded, parts)
    }

    fn describe(nodes: &DiskNodes) -> String {
        Disks::describe(nodes)
    }
}

fn host() -> (Host<Troubled>, Gate) {
    let (host, gate, _) = host_with_gates();
    (host, gate)
}

/// The gates are those of opening and of closing.
fn host_with_gates() -> (Host<Troubled>, Gate, Gate) {
    let gates = [Gate::default(), Gate::default()];
    let [gate, close_gate] = gates.clone();
    let make = move || Troubled {
        disks: Disks::new(Settings::default()),
        gate: gate.clone(),
        close_gate: close_gate.clone(),
    };
    let [gate, close_gate] = gates;
    (Host::with_backend(MapBudget::default(), make), gate, close_gate)
}

/// The `nth` disk of a guest, of two sectors.
fn disk(host: &Host<Troubled>, domid: u16, nth: u32, name: &str) -> DeviceConfig {
    DeviceConfig::disk(domid, nth, host.image(&format!("{domid}-{name}.img"), 1024))
}

fn state(host: &FakeToolstack<Troubled>, disk: &DeviceConfig) -> Option<String> {
    host.state(disk)
}

fn is_free(disk: &DeviceConfig) -> bool {
    let path = std::str::from_utf8(disk.node("params").unwrap()).unwrap();
    RawImage::open(Path::new(path), false).is_ok()
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn images_that_do_not_open_delay_no_other_disk() {
    let _watchdog = Watchdog::start();
    let (mut host, gate) = host();
    host.create_guest(1);
    let kernel = GuestKernel::new(&host.create_guest(2), Sharing::Foreign);
    let slow = [0, 1].map(|nth| disk(&host, 1, nth, &format!("slow{nth}")));
    let [own, other] = [disk(&host, 1, 2, "own"), disk(&host, 2, 0, "other")];
    slow.iter().chain([&own, &other]).for_each(|disk| host.add_device(disk));
    let begin = Instant::now();
    host.settle_until(LONG, |host| {
        [&own, &other].iter().all(|disk| state(host, disk).as_deref() == Some("2"))
    });
    // Before the slow ones are given up, which is after 8 s.
    assert!(slow.iter().all(|disk| state(&host, disk).as_deref() == Some("1")));
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    let mut driver = probe(host.window(&other), &kernel).unwrap();
    let mut data = [0; 512];
    driver.read_blocks(1, &mut data).unwrap();
    assert_eq!(data, sector_pattern(1));
    gate.open();
    host.settle_until(LONG, |host| {
        slow.iter().all(|disk| state(host, disk).as_deref() == Some("2"))
    });
}

#[test]
fn a_disk_that_is_closed_while_its_image_opens_is_closed_when_the_image_is() {
    let _watchdog = Watchdog::start();
    let (mut host, gate) = host();
    host.create_guest(1);
    let slow = disk(&host, 1, 0, "slow");
    host.add_device(&slow);
    host.handle_events().unwrap();
    host.close_device(&slow);
    for _ in 0..5 {
        host.handle_events().unwrap();
        assert_eq!(state(&host, &slow).as_deref(), Some("5"), "its image may be opened yet");
    }
    gate.open();
    host.settle_until(LONG, |host| state(host, &slow).as_deref() == Some("6"));
    assert!(is_free(&slow));
}

/// Guest 1 with a disk that was closed while its image opened. The image is open soon, and closes when the gate opens.
fn closed_while_it_opens() -> (Host<Troubled>, DeviceConfig, Gate) {
    let (mut host, gate, close_gate) = host_with_gates();
    host.create_guest(1);
    let stuck = disk(&host, 1, 0, "slow-stuck");
    host.add_device(&stuck);
    host.handle_events().unwrap();
    host.close_device(&stuck);
    host.handle_events().unwrap();
    gate.open();
    (host, stuck, close_gate)
}

fn is_closed_with_its_image(host: &mut Host<Troubled>, stuck: &DeviceConfig, close_gate: &Gate) {
    assert_eq!(state(host, stuck).as_deref(), Some("5"), "its image is not closed");
    close_gate.open();
    host.settle_until(LONG, |host| state(host, stuck).as_deref() == Some("6"));
    assert!(is_free(stuck));
}

#[test]
fn an_image_that_opens_too_late_and_does_not_close_delays_no_other_disk() {
    let _watchdog = Watchdog::start();
    let (mut host, stuck, close_gate) = closed_while_it_opens();
    let other = disk(&host, 1, 1, "other");
    host.add_device(&other);
    host.settle_until(LONG, |host| state(host, &other).as_deref() == Some("2"));
    host.settle_until(LONG, |_| !is_free(&stuck));
    is_closed_with_its_image(&mut host, &stuck, &close_gate);
}

#[test]
fn a_disk_whose_late_image_is_not_closed_yet_is_not_closed_by_the_end_of_its_guest() {
    let _watchdog = Watchdog::start();
    let (mut host, stuck, close_gate) = closed_while_it_opens();
    let own = disk(&host, 1, 1, "own");
    host.add_device(&own);
    host.settle_until(LONG, |host| state(host, &own).as_deref() == Some("2") && !is_free(&stuck));
    // The gate opened once: the image is open, and waits at the other.
    host.destroy_guest(1);
    host.settle_until(LONG, |_| is_free(&own));
    // What was told of the guest's end is taken in.
    (0..20).for_each(|_| {
        host.handle_events().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    });
    is_closed_with_its_image(&mut host, &stuck, &close_gate);
}

#[test]
fn a_disk_that_is_refused_when_it_is_open_is_refused_when_it_is_closed_and_delays_no_other() {
    let _watchdog = Watchdog::start();
    let (mut host, _, close_gate) = host_with_gates();
    host.create_guest(1);
    // A guest that nobody can serve, as there is none.
    let [stuck, other] = [disk(&host, 3, 0, "stuck"), disk(&host, 1, 0, "other")];
    host.add_device(&stuck);
    host.settle_until(LONG, |_| !is_free(&stuck));
    host.add_device(&other);
    host.settle_until(LONG, |host| state(host, &other).as_deref() == Some("2"));
    assert_eq!((state(&host, &stuck).as_deref(), host.error(&stuck)), (Some("1"), None));
    close_gate.open();
    host.settle_until(LONG, |host| host.error(&stuck).is_some());
    assert!(is_free(&stuck), "it can be tried again");
    let error = host.error(&stuck).unwrap();
    assert!(error.contains("domain 3: can't open /dev/xen/privcmd"), "{error}");
}

#[test]
fn an_image_that_does_not_open_in_time_is_refused_and_can_be_tried_again() {
    let _watchdog = Watchdog::start();
    let (mut host, gate) = host();
    host.create_guest(1);
    let slow = disk(&host, 1, 0, "slow");
    host.add_device(&slow);
    host.settle_until(LONG, |host| host.error(&slow).is_some());
    let error = host.error(&slow).unwrap();
    assert!(error.contains("1-slow.img did not open within 8 s"), "{error}");
    assert_eq!(state(&host, &slow), None, "libxl would wait");
    gate.open();
    host.remove_device(&slow);
    host.settle();
    assert!(is_free(&slow), "what was opened too late is closed");
    host.serve(&slow);
}

#[test]
fn a_guest_whose_thread_panics_loses_its_disks_and_no_other_guest_does() {
    let _watchdog = Watchdog::start();
    let (mut host, _gate) = host();
    let domain = host.create_guest(1);
    let kernel = GuestKernel::new(&host.create_guest(2), Sharing::Foreign);
    let [served, bad] = [disk(&host, 1, 0, "served"), disk(&host, 1, 1, "panic")];
    let other = disk(&host, 2, 0, "other");
    [&served, &other].into_iter().for_each(|disk| host.serve(disk));
    let mut driver = probe(host.window(&other), &kernel).unwrap();
    host.add_device(&bad);
    host.settle();
    assert_eq!(state(&host, &served).as_deref(), Some("6"));
    let error = host.error(&served).expect("a reason");
    assert!(error.contains("has ended before it"), "{error}");
    assert_eq!(state(&host, &bad), None, "libxl would wait");
    assert!(host.error(&bad).is_some());
    assert!(is_free(&served));
    // Its windows are answered, by a process that has nothing else: what the guest does there harms it no further.
    assert_eq!((domain.servers(), domain.foreign_memory().live_mappings()), (1, 1));
    assert_eq!(host.window(&served).read(reg::MAGIC), u32::MAX);
    let mut data = [0; 512];
    driver.read_blocks(1, &mut data).unwrap();
    assert_eq!(data, sector_pattern(1));
}

#[test]
fn a_guest_whose_process_ends_meets_no_access_that_nobody_answers() {
    let _watchdog = Watchdog::start();
    let (mut host, _gate) = host();
    let domain = host.create_guest(1);
    let sharing = Sharing::ALL;
    let served = sharing.map(|sharing| {
        disk(&host, 1, sharing as u32, &format!("served-{sharing}")).sharing(sharing)
    });
    served.iter().for_each(|disk| host.serve(disk));
    assert_eq!(domain.servers(), 2, "a process for each way to its memory");
    // One that ends takes the windows of its own devices along only.
    for (index, sharing) in (2..).zip(sharing) {
        let window = host.window(&served[sharing as usize]);
        let is_read = Arc::new(AtomicBool::new(false));
        let its = Arc::clone(&is_read);
        let reads = std::thread::spawn(move || {
            let mut values = BTreeSet::new();
            while !values.contains(&u32::MAX) {
                // Panics where nobody answers.
                values.insert(window.read(reg::MAGIC));
                its.store(true, Ordering::Relaxed);
            }
            values
        });
        until("a first read", || is_read.load(Ordering::Relaxed));
        let bad = disk(&host, 1, index, "panic").sharing(sharing);
        host.add_device(&bad);
        host.settle();
        assert!(host.error(&bad).is_some());
        let values = reads.join().unwrap();
        assert_eq!(host.window(&served[sharing as usize]).read(reg::MAGIC), u32::MAX);
        assert_eq!(values, [reg::MAGIC_VALUE, u32::MAX].into());
        assert_eq!((domain.servers(), domain.hung_vcpus()), (2, vec![]));
    }
    // Their windows can be had by other devices.
    for disk in &served {
        assert_eq!(state(&host, disk).as_deref(), Some("6"));
        host.remove_device(disk);
        host.settle();
        host.serve(disk);
        assert!(host.window(disk).has_device());
    }
    assert_eq!(domain.hung_vcpus(), [0_u32; 0]);
    host.destroy_guest(1);
    host.settle_until(LONG, |_| domain.foreign_memory().live_mappings() == 0);
}
