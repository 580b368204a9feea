//! What drivers do from their first access to their first request, and when they let go: one test
//! for each driver, named after it. The register accesses and their order are those of the drivers'
//! sources, as is what each driver checks on its way.

mod common;

use common::{DATA, Desc, Effect, RING, Ring, TestDevice, WRITE, Window, new_queue, ram};
use virtio_dev::{feature, process_queue};
use virtio_mmio_dev::Register;

const V1: u64 = feature::VERSION_1;
/// `VERSION_1` and the feature bits of page 0 that the drivers here take.
const USUAL: u64 = V1 | feature::INDIRECT_DESC | 1;

/// A driver at work.
struct Driver {
    window: Window,
}

impl Driver {
    fn new() -> Self {
        let mut window = Window::new(TestDevice::default());
        window.queues.stops_at_once = true;
        Self { window }
    }

    fn read(&mut self, register: Register) -> u32 {
        self.window.read(register)
    }

    fn write(&mut self, register: Register, value: u32) -> Effect {
        self.window.write(register, value)
    }

    /// Writes what must be taken.
    fn set(&mut self, register: Register, value: u32) {
        let effect = self.write(register, value);
        let taken = matches!(effect, Effect::None | Effect::Reset | Effect::QueueStop(_));
        assert!(taken, "{register:?} = {value:#x}: {effect:?}");
    }

    /// Most drivers set bits of the status by what they read of it.
    fn add_status(&mut self, bits: u32) {
        let status = self.read(Register::Status) | bits;
        let _ = self.write(Register::Status, status);
        assert_eq!(self.read(Register::Status), status);
    }

    fn reset_and_poll(&mut self) {
        self.set(Register::Status, 0);
        assert_eq!(self.read(Register::Status), 0);
    }

    fn offered(&mut self, pages: &[u32]) -> u64 {
        pages.iter().fold(0, |bits, page| {
            self.set(Register::DeviceFeaturesSel, *page);
            bits | u64::from(self.read(Register::DeviceFeatures)) << (32 * page)
        })
    }

    fn take_features(&mut self, pages: &[u32], features: u64) {
        for page in pages {
            self.set(Register::DriverFeaturesSel, *page);
            self.set(Register::DriverFeatures, (features >> (32 * page)) as u32);
        }
    }

    fn addresses(&mut self, desc: u64, avail: u64, used: u64) {
        for (low, high, addr) in [
            (Register::QueueDescLow, Register::QueueDescHigh, desc),
            (Register::QueueDriverLow, Register::QueueDriverHigh, avail),
            (Register::QueueDeviceLow, Register::QueueDeviceHigh, used),
        ] {
            self.set(low, addr as u32);
            self.set(high, (addr >> 32) as u32);
        }
    }

    fn queue_ready(&mut self, size: u32) {
        self.set(Register::QueueSize, size);
        self.addresses(RING.desc, RING.avail, RING.used);
        self.set(Register::QueueReady, 1);
    }

    /// As Linux, U-Boot and virtio-win do it: a queue that is ready already is an error.
    fn find_queue(&mut self) {
        self.set(Register::QueueSel, 0);
        assert_eq!(self.read(Register::QueueReady), 0);
        let max = self.read(Register::QueueSizeMax);
        assert_eq!(max, 16);
        self.queue_ready(max);
    }

    fn driver_ok(&mut self) {
        let status = self.read(Register::Status) | 4;
        assert_eq!(self.write(Register::Status, status), Effect::Activate);
        assert_eq!(self.read(Register::Status), status);
    }

    /// The device serves queue 0, with these features.
    fn is_served(&mut self, features: u64) {
        assert_eq!(self.window.transport.features(), features);
        let config = self.window.transport.queue(0).expect("a live queue");
        let memory = ram();
        let mut ring = Ring::new(&memory, config.size);
        let mut queue = new_queue(&config, &memory, self.window.transport.interrupt(0));
        ring.desc(0, Desc(DATA, 4, WRITE, 0));
        ring.offer(0);
        assert_eq!(self.write(Register::QueueNotify, 0), Effect::Notify(0));
        process_queue(&mut queue, |_| 4);
        assert_eq!(ring.used(), [(0, 4)]);
        assert_eq!(self.read(Register::InterruptStatus), 1);
        self.set(Register::InterruptAck, 1);
        assert_eq!(self.read(Register::InterruptStatus), 0);
    }

    fn config<const N: usize>(&mut self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.window.transport.read(0x100 + offset, &mut data);
        data
    }
}

const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn linux(driver: &mut Driver) {
    // register_virtio_device: reset, then acknowledge.
    driver.set(Register::Status, 0);
    driver.add_status(1);
    linux_probe(driver);
}

fn linux_probe(driver: &mut Driver) {
    driver.add_status(2);
    let features = driver.offered(&[1, 0]) & USUAL;
    driver.take_features(&[1, 0], features);
    driver.add_status(8);
    driver.find_queue();
    driver.driver_ok();
    driver.is_served(USUAL);
}

#[test]
fn linux_binds_unbinds_and_binds_again() {
    let mut driver = Driver::new();
    linux(&mut driver);
    // virtblk_remove: reset, and only then the queues are taken down; virtio_dev_remove
    // acknowledges the device anew.
    driver.set(Register::Status, 0);
    driver.set(Register::QueueSel, 0);
    driver.set(Register::QueueReady, 0);
    assert_eq!(driver.read(Register::QueueReady), 0);
    driver.add_status(1);
    linux_probe(&mut driver);
}

#[test]
fn linux_whose_probe_fails_gives_up_and_takes_its_queues_down() {
    let mut driver = Driver::new();
    driver.set(Register::Status, 0);
    driver.add_status(3);
    driver.take_features(&[1, 0], USUAL);
    driver.add_status(8);
    driver.find_queue();
    driver.set(Register::QueueReady, 0);
    assert_eq!(driver.read(Register::QueueReady), 0);
    driver.add_status(128);
    linux(&mut driver);
}

#[test]
fn linux_reads_a_field_of_64_bits_in_halves_while_the_generation_stands() {
    let mut driver = Driver::new();
    let before = driver.read(Register::ConfigGeneration);
    assert_eq!(driver.config::<4>(0), CONFIG[..4]);
    assert_eq!(driver.config::<4>(4), CONFIG[4..]);
    assert_eq!(driver.read(Register::ConfigGeneration), before);
}

/// U-Boot up to 2024: ACKNOWLEDGE is set when the device is bound, and the reset that begins a probe
/// is followed by DRIVER alone.
fn u_boot(driver: &mut Driver, after_reset: &[u32]) {
    driver.add_status(1);
    driver.set(Register::Status, 0);
    for bits in after_reset {
        driver.add_status(*bits);
    }
    let offered = driver.offered(&[1, 0]);
    driver.take_features(&[1, 0], offered & V1);
    driver.add_status(8);
    driver.find_queue();
    assert_eq!((driver.config::<4>(0), driver.config::<4>(4)), ([1, 2, 3, 4], [5, 6, 7, 8]));
    driver.driver_ok();
    driver.is_served(V1);
}

#[test]
fn u_boot_does_not_acknowledge_the_device_after_its_second_reset() {
    let mut driver = Driver::new();
    u_boot(&mut driver, &[2]);
    assert_eq!(driver.read(Register::Status), 14);
}

#[test]
fn u_boot_of_today_acknowledges_the_device() {
    u_boot(&mut Driver::new(), &[1, 2]);
}

#[test]
fn u_boot_hands_the_device_over_to_linux() {
    let mut driver = Driver::new();
    u_boot(&mut driver, &[2]);
    // Its remove is a reset; a kernel that is started without it resets the device itself.
    driver.set(Register::Status, 0);
    linux(&mut driver);
    u_boot(&mut driver, &[2]);
    linux(&mut driver);
}

fn freebsd(driver: &mut Driver) {
    driver.set(Register::Status, 0);
    driver.add_status(1);
    driver.add_status(2);
    let features = driver.offered(&[1, 0]) & USUAL;
    driver.take_features(&[1, 0], features);
    driver.add_status(8);
    driver.set(Register::QueueSel, 0);
    let max = driver.read(Register::QueueSizeMax);
    driver.queue_ready(max);
    driver.driver_ok();
    driver.is_served(USUAL);
}

#[test]
fn freebsd_attaches_suspends_and_attaches_again() {
    let mut driver = Driver::new();
    freebsd(&mut driver);
    freebsd(&mut driver);
    // vtmmio_free_virtqueues, with the device live or after the reset.
    for _ in 0..2 {
        driver.set(Register::QueueSel, 0);
        driver.set(Register::QueueReady, 0);
        assert_eq!(driver.read(Register::QueueReady), 0);
        driver.set(Register::Status, 0);
    }
}

#[test]
fn freebsd_whose_child_fails_gives_up_resets_and_acknowledges() {
    let mut driver = Driver::new();
    driver.set(Register::Status, 0);
    driver.add_status(1);
    driver.add_status(2);
    driver.add_status(128);
    driver.set(Register::Status, 0);
    driver.add_status(1);
    freebsd(&mut driver);
}

#[test]
fn netbsd_attaches_and_zeroes_the_addresses_of_a_queue_it_frees() {
    let mut driver = Driver::new();
    driver.set(Register::Status, 0);
    driver.add_status(1);
    driver.add_status(2);
    let features = driver.offered(&[0, 1]) & USUAL;
    driver.take_features(&[0, 1], features);
    driver.add_status(8);
    driver.set(Register::QueueSel, 0);
    let max = driver.read(Register::QueueSizeMax);
    driver.queue_ready(max);
    driver.driver_ok();
    driver.is_served(USUAL);
    driver.set(Register::Status, 0);
    driver.set(Register::QueueSel, 0);
    driver.set(Register::QueueReady, 0);
    driver.addresses(0, 0, 0);
}

/// Its virtio_mmio takes version 2 of the transport and negotiates as for version 1: the features
/// of page 0, no VERSION_1, no FEATURES_OK.
#[test]
fn openbsd_goes_live_without_features_ok_and_without_version_1() {
    let mut driver = Driver::new();
    for _ in 0..2 {
        driver.reset_and_poll();
        driver.add_status(1);
        driver.add_status(2);
        let features = driver.offered(&[0]) & USUAL;
        driver.take_features(&[0], features);
        driver.set(Register::QueueSel, 0);
        let max = driver.read(Register::QueueSizeMax);
        driver.queue_ready(max);
        driver.driver_ok();
        assert_eq!(driver.read(Register::Status), 7);
        driver.is_served(USUAL & !V1);
    }
}

/// The driver of EDK2 (OvmfPkg) keeps the status itself, reads the configuration byte by byte and
/// before it has negotiated, and writes a queue's size with its addresses.
#[test]
fn edk2_keeps_the_status_itself_and_resets_when_it_exits_boot_services() {
    let mut driver = Driver::new();
    for status in [0, 1, 3] {
        driver.set(Register::Status, status);
    }
    driver.offered(&[0, 1]);
    let bytes: Vec<u8> = (0..8).map(|at| driver.config::<1>(at)[0]).collect();
    assert_eq!(bytes, CONFIG);
    driver.take_features(&[0, 1], V1 | 1);
    driver.set(Register::Status, 11);
    assert_eq!(driver.read(Register::Status), 11);
    driver.set(Register::QueueSel, 0);
    assert_eq!(driver.read(Register::QueueSizeMax), 16);
    driver.queue_ready(16);
    assert_eq!(driver.write(Register::Status, 15), Effect::Activate);
    driver.is_served(V1 | 1);
    driver.set(Register::Status, 0);
    linux(&mut driver);
}

fn seabios(queue_first: bool) {
    let mut driver = Driver::new();
    driver.set(Register::Status, 0);
    driver.set(Register::Status, 3);
    if queue_first {
        driver.find_queue();
    }
    driver.offered(&[0, 1]);
    driver.take_features(&[0, 1], V1 | 1);
    driver.set(Register::Status, 11);
    assert_eq!(driver.read(Register::Status), 11);
    if !queue_first {
        driver.find_queue();
    }
    assert_eq!(driver.write(Register::Status, 15), Effect::Activate);
    driver.is_served(V1 | 1);
}

#[test]
fn seabios_sets_its_queue_up_after_the_features() {
    seabios(false);
}

#[test]
fn seabios_1_14_sets_its_queue_up_before_the_features() {
    seabios(true);
}

/// Zephyr writes one feature bit after the other, each with those before it.
#[test]
fn zephyr_writes_one_feature_bit_at_a_time() {
    let mut driver = Driver::new();
    driver.reset_and_poll();
    driver.add_status(1);
    driver.add_status(2);
    driver.take_features(&[1], V1);
    for (page, features) in [(0, 1), (0, 1 | feature::INDIRECT_DESC)] {
        assert_ne!(driver.offered(&[page]) & features, 0);
        driver.take_features(&[page], features);
    }
    driver.add_status(8);
    driver.set(Register::QueueSel, 0);
    assert_eq!(driver.read(Register::QueueSizeMax), 16);
    driver.set(Register::QueueSel, 0);
    // As many descriptors as its application asked for.
    driver.queue_ready(4);
    driver.driver_ok();
    driver.is_served(USUAL);
}

/// virtio-win has no driver of this transport; these are the steps of its VirtIO library. Fields
/// of the configuration that are no integers it reads byte by byte, while the generation stands.
#[test]
fn virtio_win_polls_its_reset_and_reads_fields_byte_by_byte() {
    let mut driver = Driver::new();
    for _ in 0..2 {
        driver.reset_and_poll();
        driver.add_status(1);
        driver.add_status(2);
        let offered = driver.offered(&[0, 1]);
        let generation = driver.read(Register::ConfigGeneration);
        let bytes: Vec<u8> = (0..8).map(|at| driver.config::<1>(at)[0]).collect();
        assert_eq!((bytes.as_slice(), generation), (&CONFIG[..], 0));
        driver.take_features(&[0, 1], offered & USUAL);
        driver.add_status(8);
        driver.find_queue();
        assert_eq!(driver.read(Register::Status) & 4, 0);
        driver.driver_ok();
        driver.is_served(USUAL);
        driver.set(Register::QueueSel, 0);
    }
}
