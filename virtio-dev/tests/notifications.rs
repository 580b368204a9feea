//! No kick and no interrupt is lost, whatever the driver does between any two steps of the device:
//! with every schedule of a bounded length, with random long ones, and on two threads.

mod common;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use virtio_dev::vm_memory::bitmap::BS;
use virtio_dev::vm_memory::guest_memory::GuestMemorySliceIterator;
use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError, Permissions};
use virtio_dev::{ControlPlane, LiveQueue, feature};

use common::{DATA, Desc, RING, Ram, Ring, TestDevice, WRITE, live_control, ram};

const SIZE: u16 = 4;

/// Rings at whose every look-up the driver gets its turn.
struct Interleaved<'a> {
    mem: &'a Ram,
    driver: &'a Driver<'a>,
}

impl GuestMemory for Interleaved<'_> {
    type PhysicalMemory = Ram;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(self.mem, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
        self.driver.turn();
        GuestMemory::get_slices(self.mem, addr, count, access)
    }
}

/// Where the driver's submitting CPU is.
#[derive(Clone, Copy)]
enum Submit {
    Offer,
    Kick,
}

/// Where the CPU that takes its interrupts is, as Linux `vm_interrupt` and `virtqueue_enable_cb`.
#[derive(Clone, Copy)]
enum Handle {
    Idle,
    Acknowledge(u8),
    Collect,
    Enable,
    Recheck,
}

/// A driver of two CPUs, one memory access at a time.
struct Driver<'a> {
    ring: RefCell<Ring<'a, Ram>>,
    control: &'a ControlPlane<TestDevice>,
    event_idx: bool,
    edge: &'a Mutex<bool>,
    kick: Cell<bool>,
    submit: Cell<Submit>,
    handle: Cell<Handle>,
    to_offer: Cell<u16>,
    collected: Cell<usize>,
    free: RefCell<Vec<u16>>,
    schedule: RefCell<Box<dyn Iterator<Item = u8>>>,
}

impl Driver<'_> {
    /// What the schedule says: bit 0 a step of the submitter, bit 1 one of the handler.
    fn turn(&self) {
        let now = self.schedule.borrow_mut().next().unwrap_or(0);
        if now & 1 != 0 {
            self.submit_step();
        }
        if now & 2 != 0 {
            self.handle_step();
        }
    }

    fn submit_step(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        match self.submit.get() {
            Submit::Offer => {
                if self.to_offer.get() == 0 {
                    return false;
                }
                let Some(head) = self.free.borrow_mut().pop() else {
                    return false;
                };
                self.to_offer.set(self.to_offer.get() - 1);
                ring.desc(head, Desc(DATA, 8, WRITE, 0));
                ring.offer(head);
                self.submit.set(Submit::Kick);
            }
            Submit::Kick => {
                let wanted = if self.event_idx {
                    ring.avail_event() == ring.avail_idx.wrapping_sub(1)
                } else {
                    ring.used_flags() & 1 == 0
                };
                if wanted {
                    self.kick.set(true);
                }
                self.submit.set(Submit::Offer);
            }
        }
        true
    }

    fn handle_step(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        let next = match self.handle.get() {
            Handle::Idle => {
                if !std::mem::take(&mut *self.edge.lock().unwrap()) {
                    return false;
                }
                match self.control.interrupt_status() {
                    0 => Handle::Idle,
                    bits => Handle::Acknowledge(bits),
                }
            }
            Handle::Acknowledge(bits) => {
                self.control.acknowledge(bits);
                ring.set_avail_flags(1);
                Handle::Collect
            }
            Handle::Collect => {
                let used = ring.used();
                self.collected.set(self.collected.get() + used.len());
                let mut free = self.free.borrow_mut();
                free.extend(used.iter().map(|(id, _)| *id as u16));
                Handle::Enable
            }
            Handle::Enable => {
                ring.set_used_event(ring.last_used);
                ring.set_avail_flags(0);
                Handle::Recheck
            }
            Handle::Recheck if ring.used_idx() != ring.last_used => Handle::Collect,
            Handle::Recheck => Handle::Idle,
        };
        self.handle.set(next);
        true
    }
}

/// Runs device and driver under `schedule` until neither has anything to do; gives how many of
/// `requests` came back.
fn run(event_idx: bool, requests: u16, schedule: impl Iterator<Item = u8> + 'static) -> usize {
    let mem = &ram();
    let edge = Arc::new(Mutex::new(false));
    let line = Arc::clone(&edge);
    let control = &live_control(feature::VERSION_1, move || *line.lock().unwrap() = true);
    let driver = Driver {
        ring: RefCell::new(Ring::new(mem, SIZE)),
        control,
        event_idx,
        edge: &edge,
        kick: Cell::new(true),
        submit: Cell::new(Submit::Offer),
        handle: Cell::new(Handle::Idle),
        to_offer: Cell::new(requests),
        collected: Cell::new(0),
        free: RefCell::new((0..SIZE).collect()),
        schedule: RefCell::new(Box::new(schedule)),
    };
    let rings = Interleaved { mem, driver: &driver };
    let config = driver.ring.borrow().config(event_idx);
    let mut queue = LiveQueue::new(&config, &&rings, mem, control.interrupt(0)).unwrap();
    loop {
        if driver.kick.take() {
            serve(&mut queue);
        } else if !driver.submit_step() && !driver.handle_step() {
            assert!(!queue.is_broken(), "{:?}", queue.fault());
            return driver.collected.get();
        }
    }
}

/// A worker's loop between two sleeps.
fn serve<R, D>(queue: &mut LiveQueue<R, D>)
where
    R: virtio_dev::vm_memory::GuestAddressSpace,
    D: virtio_dev::vm_memory::GuestAddressSpace,
{
    loop {
        queue.disable_notification();
        while let Some(chain) = queue.pop() {
            queue.complete(chain, 0);
        }
        queue.publish();
        if !queue.enable_notification() {
            return;
        }
    }
}

#[test]
fn no_schedule_of_bounded_length_loses_a_kick_or_an_interrupt() {
    let points = if cfg!(miri) { 1 } else { 6 };
    for event_idx in [false, true] {
        // The first look-ups are those of `new`; start at different ones further on.
        for skip in [0, 6, 12] {
            for schedule in 0_u32..1 << (2 * points) {
                let turns = (0..points).map(move |nth| (schedule >> (2 * nth)) as u8 & 3);
                let came_back = run(event_idx, 3, std::iter::repeat_n(1, skip).chain(turns));
                assert_eq!(came_back, 3, "event_idx {event_idx}, {skip}, {schedule:#x}");
            }
        }
    }
}

/// The longest random schedule.
const TURNS: usize = if cfg!(miri) { 60 } else { 400 };

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_random_schedule_loses_a_kick_or_an_interrupt(
        event_idx in any::<bool>(),
        requests in 1_u16..if cfg!(miri) { 8 } else { 40 },
        schedule in prop::collection::vec(0_u8..4, 0..TURNS),
    ) {
        prop_assert_eq!(run(event_idx, requests, schedule.into_iter()), usize::from(requests));
    }
}

/// An eventfd or an edge: set twice is set once, yet whoever takes it has seen all that was done
/// before either.
#[derive(Default)]
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn set(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    /// Whether it came before patience ran out.
    fn take(&self) -> bool {
        let set = self.set.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (mut set, _) = self.changed.wait_timeout_while(set, patience, |set| !*set).unwrap();
        std::mem::take(&mut *set)
    }
}

/// On x86 under load the barriers are hardly ever missed; Miri, which lets a load see old values
/// wherever the memory model does, finds each of them missing.
#[test]
fn no_kick_or_interrupt_is_lost_between_two_threads() {
    const REQUESTS: usize = if cfg!(miri) { 20 } else { 5_000 };
    for event_idx in [false, true] {
        let mem = Arc::new(ram());
        let (kick, edge) = (Signal::default(), Arc::new(Signal::default()));
        let line = Arc::clone(&edge);
        let control = live_control(feature::VERSION_1, move || line.set());
        let interrupt = control.interrupt(0);
        let mut ring = Ring::new(&*mem, SIZE);
        (0..SIZE).for_each(|head| ring.desc(head, Desc(DATA, 8, WRITE, 0)));
        let config = ring.config(event_idx);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut queue = LiveQueue::new(&config, &mem, Arc::clone(&mem), interrupt).unwrap();
                while !done.load(Ordering::Acquire) {
                    serve(&mut queue);
                    if !kick.take() {
                        return;
                    }
                }
                assert!(!queue.is_broken());
            });
            let came_back = threaded_driver(&mut ring, &control, event_idx, REQUESTS, &kick, &edge);
            done.store(true, Ordering::Release);
            kick.set();
            assert_eq!(came_back, REQUESTS, "a kick or an interrupt is lost");
        });
    }
}

/// Keeps the ring busy until `requests` came back, or an interrupt doesn't come; gives how many
/// did. Its accesses of the indices are atomic and ordered as a driver's are.
fn threaded_driver(
    ring: &mut Ring<'_, Ram>,
    control: &ControlPlane<TestDevice>,
    event_idx: bool,
    requests: usize,
    kick: &Signal,
    edge: &Signal,
) -> usize {
    let mem = ring.mem;
    let load = |addr: u64| -> u16 { mem.load(GuestAddress(addr), Ordering::Acquire).unwrap() };
    let store = |value: u16, addr: u64| {
        mem.store(value, GuestAddress(addr), Ordering::Release).unwrap();
    };
    let used_event = RING.avail + 4 + 2 * u64::from(SIZE);
    let avail_event = RING.used + 4 + 8 * u64::from(SIZE);
    let (mut offered, mut collected) = (0_usize, 0_usize);
    while collected < requests {
        // One request at a time or as many as fit, in turns of different lengths.
        let window = 1 + collected % usize::from(SIZE);
        while offered < requests && offered - collected < window {
            let slot = u64::from(ring.avail_idx % SIZE);
            store(ring.avail_idx % SIZE, RING.avail + 4 + 2 * slot);
            ring.avail_idx = ring.avail_idx.wrapping_add(1);
            store(ring.avail_idx, RING.avail + 2);
            fence(Ordering::SeqCst);
            let wanted = if event_idx {
                load(avail_event) == ring.avail_idx.wrapping_sub(1)
            } else {
                load(RING.used) & 1 == 0
            };
            if wanted {
                kick.set();
            }
            offered += 1;
        }
        loop {
            let used = load(RING.used + 2);
            collected += usize::from(used.wrapping_sub(ring.last_used));
            let progress = used != ring.last_used;
            ring.last_used = used;
            store(used, used_event);
            fence(Ordering::SeqCst);
            if load(RING.used + 2) != used {
                continue;
            }
            if !progress {
                if !edge.take() {
                    return collected;
                }
                control.acknowledge(control.interrupt_status());
                continue;
            }
            break;
        }
    }
    collected
}
