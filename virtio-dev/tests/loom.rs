//! No kick and no interrupt is lost on any schedule, and whatever the memory model lets a processor
//! see late: the queue, the interrupt and the control plane themselves, on loom's atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p virtio-dev --test loom --release`
//!
//! Loom tries every order of the threads' accesses, and every old value that a load may still give.
//! Who sleeps without being woken again is a deadlock, which loom reports. Guest memory stays plain
//! memory but for the fields that both sides race for ([`cells`]). The driver's accesses, orders
//! and barriers are those of Linux's virtio_ring.c; a kick and an interrupt line are a [`Signal`].
#![cfg(loom)]

mod common;

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use virtio_dev::{ControlPlane, LiveQueue, cells, feature, process_queue};

use common::{DATA, Desc, RING, Ram, Ring, TestDevice, WRITE, live_control, ram};

const SIZE: u16 = 4;

const AVAIL_FLAGS: u64 = RING.avail;
const AVAIL_INDEX: u64 = RING.avail + 2;
const USED_EVENT: u64 = RING.avail + 4 + 2 * SIZE as u64;
const USED_FLAGS: u64 = RING.used;
const USED_INDEX: u64 = RING.used + 2;
const AVAIL_EVENT: u64 = RING.used + 4 + 8 * SIZE as u64;

fn load(addr: u64, order: Ordering) -> u16 {
    cells::load(addr, order).expect("a cell") as u16
}

fn store(addr: u64, value: u16, order: Ordering) {
    assert!(cells::store(addr, value.into(), order), "a cell");
}

/// An eventfd, or an edge that the guest's interrupt controller keeps: set twice is set once, and
/// whoever takes it sees all that was done before either. The kernel's lock does that for an
/// eventfd: the write that a reader finds, and those it stands for, came before the read.
struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn new() -> Arc<Self> {
        Arc::new(Self { set: Mutex::new(false), changed: Condvar::new() })
    }

    fn set(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// The device's end of a queue, and the driver's.
struct Rig {
    control: ControlPlane<TestDevice>,
    queue: Option<LiveQueue<Arc<Ram>, Arc<Ram>>>,
    edge: Arc<Signal>,
    event_idx: bool,
    avail_index: u16,
    last_used: u16,
}

impl Rig {
    /// A live device whose driver has made `offered` buffers available and wants no interrupt yet.
    fn new(memory: &Arc<Ram>, event_idx: bool, offered: u16) -> Self {
        cells::make([AVAIL_FLAGS, AVAIL_INDEX, USED_EVENT, USED_FLAGS, USED_INDEX, AVAIL_EVENT]);
        let edge = Signal::new();
        let line = Arc::clone(&edge);
        let control = live_control(feature::VERSION_1, move || line.set());
        store(AVAIL_FLAGS, 1, Ordering::Relaxed);
        store(USED_EVENT, u16::MAX, Ordering::Relaxed);
        store(AVAIL_INDEX, offered, Ordering::Relaxed);
        let config = Ring::new(&**memory, SIZE).config(event_idx);
        let rings = Arc::clone(memory);
        let queue = LiveQueue::new(&config, memory, rings, control.interrupt(0));
        Self {
            control,
            queue: Some(queue.expect("a queue")),
            edge,
            event_idx,
            avail_index: offered,
            last_used: 0,
        }
    }

    /// `virtqueue_add`, `virtqueue_kick_prepare`: one more buffer; whether the device is to be
    /// notified.
    fn offer(&mut self) -> bool {
        let old = self.avail_index;
        self.avail_index = old.wrapping_add(1);
        // `virtio_wmb` before the index, `virtio_mb` after it.
        store(AVAIL_INDEX, self.avail_index, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.event_idx {
            load(AVAIL_EVENT, Ordering::Relaxed) == old
        } else {
            load(USED_FLAGS, Ordering::Relaxed) & 1 == 0
        }
    }

    /// Takes used buffers until there are `count`, asleep between the interrupts.
    fn collect(&mut self, count: u16) {
        loop {
            // `virtqueue_get_buf`
            self.last_used = load(USED_INDEX, Ordering::Acquire);
            if self.last_used == count {
                return;
            }
            // `virtqueue_enable_cb`
            if self.event_idx {
                store(USED_EVENT, self.last_used, Ordering::Relaxed);
            } else {
                store(AVAIL_FLAGS, 0, Ordering::Relaxed);
            }
            fence(Ordering::SeqCst);
            if load(USED_INDEX, Ordering::Relaxed) == self.last_used {
                self.edge.wait();
                self.acknowledge();
            }
        }
    }

    /// `vm_interrupt`: two traps.
    fn acknowledge(&mut self) {
        self.control.acknowledge(self.control.interrupt_status());
    }

    fn queue(&mut self) -> LiveQueue<Arc<Ram>, Arc<Ram>> {
        self.queue.take().expect("one device thread")
    }
}

/// Checks every execution with at most `preemptions` threads stopped where they could go on.
fn check(preemptions: usize, model: impl Fn(&Arc<Ram>, bool) + Sync + Send + 'static) {
    let memory = Arc::new(ram());
    let mut ring = Ring::new(&*memory, SIZE);
    for head in 0..SIZE {
        ring.desc(head, Desc(DATA, 8, WRITE, 0));
        ring.entry(head);
    }
    let model = Arc::new(model);
    for event_idx in [false, true] {
        let (memory, model) = (Arc::clone(&memory), Arc::clone(&model));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(move || {
            model(&memory, event_idx);
            cells::make([]);
        });
    }
}

#[test]
fn no_interrupt_is_lost_while_the_driver_goes_to_sleep() {
    check(4, |memory, event_idx| {
        let mut rig = Rig::new(memory, event_idx, 1);
        let mut queue = rig.queue();
        let device = thread::spawn(move || {
            let chain = queue.pop().expect("what was offered");
            queue.complete(chain, 0);
            queue.publish();
        });
        rig.collect(1);
        device.join().unwrap();
    });
}

#[test]
fn no_kick_is_lost_while_the_device_goes_to_sleep() {
    check(4, |memory, event_idx| {
        // One is there already, so that the device is about to arm for the next.
        let mut rig = Rig::new(memory, event_idx, 1);
        let mut queue = rig.queue();
        let kick = Signal::new();
        let its = Arc::clone(&kick);
        let device = thread::spawn(move || {
            let mut served = 0;
            loop {
                while let Some(chain) = queue.pop() {
                    queue.complete(chain, 0);
                    served += 1;
                }
                if queue.enable_notification() {
                    continue;
                }
                if served == 2 {
                    break;
                }
                its.wait();
            }
        });
        if rig.offer() {
            kick.set();
        }
        device.join().unwrap();
    });
}

/// A backend's thread, as `QueueThread` of virtio-worker: it serves, sleeps until woken, and ends when
/// told to. The flag is stored before the wake-up, and read after the sleep. That crate has a model of
/// its own, of the wake-up.
#[test]
fn a_thread_that_serves_and_sleeps_answers_all_and_ends() {
    check(3, |memory, event_idx| {
        let mut rig = Rig::new(memory, event_idx, 1);
        let mut queue = rig.queue();
        let (wake, stop) = (Signal::new(), Arc::new(AtomicBool::new(false)));
        let (its_wake, its_stop) = (Arc::clone(&wake), Arc::clone(&stop));
        let device = thread::spawn(move || {
            while !its_stop.load(Ordering::Acquire) {
                let more = process_queue(&mut queue, |_| 0);
                assert!(!queue.is_broken(), "{:?}", queue.fault());
                if !more {
                    its_wake.wait();
                }
            }
        });
        if rig.offer() {
            wake.set();
        }
        rig.collect(2);
        stop.store(true, Ordering::Release);
        wake.set();
        device.join().unwrap();
    });
}

/// Two queues raise one line. An event that finds its bit set relies on the edge of the other's,
/// and on being seen by whoever acknowledges that bit after it.
#[test]
fn an_event_without_an_edge_is_seen_by_the_handler_of_the_others() {
    check(3, |memory, event_idx| {
        let mut rig = Rig::new(memory, event_idx, 0);
        let indices = [USED_INDEX, AVAIL_INDEX];
        let devices = indices.map(|index| {
            let interrupt = rig.control.interrupt(0);
            thread::spawn(move || {
                store(index, 7, Ordering::Release);
                interrupt.used_buffer();
            })
        });
        while !indices.iter().all(|index| load(*index, Ordering::Acquire) == 7) {
            rig.edge.wait();
            rig.acknowledge();
        }
        devices.into_iter().for_each(|device| device.join().unwrap());
    });
}
