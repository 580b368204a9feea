//! A guest on one disk, and whoever traps its accesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_dev::{ControlState, Interrupt, Positions, QueueConfig, Status, WriteOutcome};
use virtio_mmio_dev::Register;

use super::rules::{self, Event};
use super::{Op, Report};
use crate::calls::{Call, Calls};
use crate::device::{DISK, Disk, Serving, Setup, Transport};
use crate::driver_ring::DriverRing;
use crate::memory::Memory;
use crate::transport_case::wanted;

/// No turn of a worker may look up more addresses: 32 requests of 32 buffers, several times over.
const LOOKUPS: u64 = 10_000;
/// No turn of a worker may answer more requests.
const BATCH: u64 = 256;
/// After this many turns in a row the guest is busy with itself: its own reads keep writing to its
/// ring.
const TURNS: usize = 64;

pub(super) struct Guest {
    disk: Disk,
    read_only: bool,
    memory: Arc<Memory>,
    transport: Transport,
    calls: Calls,
    edges: Arc<AtomicU64>,
    serving: Option<(QueueConfig, Serving)>,
    /// The features that an initialisation takes, of those offered.
    features: u64,
    /// Resets and stops are answered by [`Op::Finish`] only.
    late: bool,
    /// The queue's stop was asked for, and is not answered.
    draining: bool,
    stale: Option<Interrupt>,
    /// A worker could not be had, or found its ring broken, since the last reset.
    gave_up: bool,
    report: Report,
}

fn transport(disk: &Disk, edges: &Arc<AtomicU64>) -> Transport {
    disk.transport(line(edges)).build().expect("a transport")
}

fn line(edges: &Arc<AtomicU64>) -> impl Fn() + Send + Sync + 'static {
    let edges = Arc::clone(edges);
    move || {
        edges.fetch_add(1, Ordering::Relaxed);
    }
}

impl Guest {
    pub(super) fn new(setup: Setup, features: u64, late: bool) -> Self {
        let disk = Disk::new(setup);
        let edges = Arc::new(AtomicU64::new(0));
        Self {
            transport: transport(&disk, &edges),
            calls: Calls::default(),
            disk,
            read_only: setup.read_only,
            memory: Memory::with(&[], 0),
            edges,
            serving: None,
            features,
            late,
            draining: false,
            stale: None,
            gave_up: false,
            report: Report::default(),
        }
    }

    pub(super) fn act(&mut self, op: Op) {
        match op {
            Op::Write(place, value) => self.set(register(place), value),
            Op::Set(place, value) => self.set(register(place), value.into()),
            Op::WriteRaw(offset, data) => self.write(offset.into(), &data),
            Op::ReadRaw(offset, len) => self.read(offset.into(), usize::from(len) % 33),
            Op::Store(addr, data) => self.memory.put(addr.into(), &data),
            Op::Descriptor(index, addr, len, flags, next) => {
                let (addr, len) = (addr.into(), len.into());
                self.ring(|ring| ring.descriptor(index.into(), addr, len, flags, next));
            }
            Op::Offer(head) => self.ring(|ring| ring.offer(head)),
            Op::Turn => self.serve(1),
            Op::Finish => self.finish(),
            Op::Stale => {
                if let Some(interrupt) = self.stale.clone() {
                    self.watched(Event::Nothing, |_| {
                        interrupt.used_buffer();
                        interrupt.needs_reset();
                    });
                }
            }
            Op::Restore => self.restore(),
            Op::Initialise(features, log) => self.initialise(features, log),
            Op::Request(kind, sector, sectors) => {
                self.ring(|ring| ring.request(kind, sector, sectors));
                self.set(Register::QueueNotify, 0);
            }
            Op::Fault(fault) => self.disk.inject(fault),
            Op::Rings(desc, avail, used) => {
                self.set(Register::QueueDescLow, u32::from(desc) << 8);
                self.set(Register::QueueDriverLow, u32::from(avail) << 8);
                self.set(Register::QueueDeviceLow, u32::from(used) << 8);
            }
            Op::ConfigChanged => {
                self.watched(Event::Config, |guest| guest.transport.config_changed());
            }
        }
    }

    /// Ends everything in order, and looks whether it ended.
    pub(super) fn end(mut self) -> Report {
        self.finish();
        self.serve(TURNS);
        self.set(Register::Status, 0);
        self.finish();
        assert_eq!(self.transport.state(), {
            let fresh = transport(&self.disk, &self.edges).state();
            // The one thing that a reset must not set back.
            let config_generation = self.transport.state().config_generation;
            ControlState { config_generation, ..fresh }
        });
        self.report
    }

    /// Looks at the disk, which nothing but a worker can have changed.
    fn disk_is_sound(&self) {
        self.disk.with_bytes(|bytes| {
            assert_eq!(bytes.len(), DISK, "the disk has another size");
            assert!(!self.read_only || bytes == Disk::contents(), "a read-only disk was written");
        });
    }

    /// Does something to the transport, and looks whether it may have done what it did.
    fn watched<T>(&mut self, event: Event<'_>, act: impl FnOnce(&mut Self) -> T) -> T {
        let (state, edges) = (self.transport.state(), self.edges.load(Ordering::Relaxed));
        let result = act(self);
        let raised = self.edges.load(Ordering::Relaxed) - edges;
        rules::check(&state, &self.transport, event, raised);
        result
    }

    fn set(&mut self, register: Register, value: u32) {
        self.write(register.offset(), &value.to_le_bytes());
    }

    fn read(&mut self, offset: u64, len: usize) {
        let mut data = vec![0xee; len];
        self.watched(Event::Nothing, |guest| guest.transport.read(offset, &mut data));
        rules::check_read(&self.transport, offset, &data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let was_live = self.transport.status().contains(Status::DRIVER_OK);
        let interrupt = self.transport.interrupt(0);
        let event = Event::Write(offset, data);
        let outcome =
            self.watched(event, |guest| guest.transport.write(offset, data, &mut guest.calls));
        let is_live = self.transport.status().contains(Status::DRIVER_OK);
        let calls = self.calls.take();
        assert_eq!(calls.contains(&Call::DriverOk), is_live && !was_live, "{calls:?}");
        match outcome {
            WriteOutcome::Done => {}
            WriteOutcome::Ignored(_) => assert_eq!(calls, [], "for a write that was ignored"),
            WriteOutcome::Notify(queue) => {
                assert_eq!((queue, calls.as_slice()), (0, &[][..]));
                assert!(self.transport.queue(0).is_some(), "a kick of a queue that is not there");
                self.serve(TURNS);
            }
            WriteOutcome::Pending(write) => {
                assert!(self.transport.is_pending(write));
                assert!(self.draining || calls == [Call::Stop], "nothing is to be waited for");
            }
        }
        if event.is_reset() && outcome == WriteOutcome::Done {
            self.was_reset(interrupt);
        }
        for call in calls {
            match call {
                Call::DriverOk | Call::Failed => {}
                Call::ConfigWritten => assert!(offset >= 0x100),
                Call::Start => {
                    assert!(self.transport.queue(0).is_some(), "ready, and not there");
                    self.start();
                }
                Call::Stop => {
                    assert!(!self.draining, "a queue is stopped twice");
                    self.draining = true;
                    if !self.late {
                        self.finish();
                    }
                }
            }
        }
    }

    /// Answers what waits: ends the worker, then says so.
    fn finish(&mut self) {
        if !std::mem::take(&mut self.draining) {
            return;
        }
        self.stop();
        let (interrupt, state) = (self.transport.interrupt(0), self.transport.state());
        let event = if state.reset_pending { Event::ResetDone } else { Event::Worker };
        self.watched(event, |guest| guest.transport.queue_stopped(0));
        if state.queues[0].stopping {
            self.report.stops += 1;
        }
        if state.reset_pending {
            self.was_reset(interrupt);
        }
    }

    /// The transport's earlier interrupt is stale.
    fn was_reset(&mut self, interrupt: Interrupt) {
        assert_eq!(self.transport.status(), Status::empty());
        self.stale = Some(interrupt);
        self.gave_up = false;
        self.report.resets += 1;
    }

    fn start(&mut self) {
        let Some(config) = self.transport.queue(0) else { return };
        assert!(self.serving.is_none(), "two workers for a queue");
        let serving = self.watched(Event::Worker, |guest| {
            guest.disk.serve(guest.transport.control(), &config, &guest.memory)
        });
        match serving {
            Some(serving) => self.serving = Some((config, serving)),
            None => self.give_up(),
        }
        self.needs_reset_is_told();
        self.serve(TURNS);
    }

    fn give_up(&mut self) {
        self.gave_up = true;
        self.report.given_up += 1;
    }

    /// `DEVICE_NEEDS_RESET` stands exactly if something went wrong.
    fn needs_reset_is_told(&self) {
        let told = self.transport.status().contains(Status::DEVICE_NEEDS_RESET);
        assert_eq!(told, self.gave_up, "DEVICE_NEEDS_RESET");
    }

    fn serve(&mut self, turns: usize) {
        for _ in 0..turns {
            let Some((_, serving)) = &self.serving else { return };
            let was_broken = serving.is_broken();
            let before = self.memory.lookups();
            let (processed, more) = self.watched(Event::Worker, |guest| {
                guest.serving.as_mut().map(|(_, serving)| serving.run()).unwrap_or_default()
            });
            assert!(self.memory.lookups() - before < LOOKUPS, "one turn doesn't end");
            assert!(processed <= BATCH, "{processed} requests in one turn");
            let is_broken = self.serving.as_ref().is_some_and(|(_, serving)| serving.is_broken());
            if is_broken && !was_broken {
                self.give_up();
            }
            self.needs_reset_is_told();
            self.disk_is_sound();
            if !more {
                break;
            }
        }
    }

    /// Ends the worker; gives where its queue stood.
    fn stop(&mut self) -> Option<Positions> {
        self.watched(Event::Worker, |guest| {
            if let Some((_, serving)) = &mut guest.serving {
                serving.drain();
            }
        });
        let (_, serving) = self.serving.take()?;
        self.disk_is_sound();
        assert_eq!(serving.in_flight(), 0, "a request is neither answered nor in hand");
        let positions = serving.positions();
        assert_eq!(positions.next_avail, positions.next_used, "popped, but not answered");
        let (ok, errors) = serving.answers();
        self.report.ok += ok;
        self.report.errors += errors;
        Some(positions)
    }

    fn restore(&mut self) {
        let positions = self.stop();
        let mut state = self.transport.state();
        let queue = &mut state.queues[0];
        match positions {
            Some(Positions { next_avail, next_used, broken }) => {
                (queue.next_avail, queue.next_used, queue.broken) = (next_avail, next_used, broken);
            }
            // Its ring could not be served, and its device waits for the reset.
            None => queue.broken |= self.gave_up,
        }
        let line = line(&self.edges);
        let restored = self.disk.transport(line).restore(&state);
        let restored = restored.unwrap_or_else(|error| panic!("{state:?}: {error}"));
        assert_eq!(restored.state(), state);
        self.watched(Event::Restored, |guest| guest.transport = restored);
        self.stale = None;
        self.report.restores += 1;
        // What was to be answered late is done, as there is no worker.
        self.draining = false;
        let event = if state.reset_pending { Event::ResetDone } else { Event::Worker };
        self.watched(event, |guest| guest.transport.resume(&mut guest.calls));
        if state.reset_pending {
            self.gave_up = false;
            self.report.resets += 1;
        }
        match self.calls.take()[..] {
            [] => {}
            [Call::Start] => self.start(),
            ref calls => panic!("{calls:?} of a transport that is resumed"),
        }
    }

    fn initialise(&mut self, features: u8, log: u8) {
        let wanted = wanted(self.features, features);
        for (register, value) in [
            (Register::Status, 0),
            (Register::Status, 1),
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 0),
            (Register::DriverFeatures, wanted as u32),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, (wanted >> 32) as u32),
            (Register::Status, 11),
            (Register::QueueSel, 0),
            (Register::QueueSize, 1 << (log % 8)),
            (Register::QueueDescLow, 0),
            (Register::QueueDriverLow, 0x200),
            (Register::QueueDeviceLow, 0x400),
            (Register::QueueReady, 1),
            (Register::Status, 15),
        ] {
            self.set(register, value);
            if register == Register::Status && value == 0 {
                self.finish();
                self.memory.put(0, &[0; 0x600]);
            }
        }
    }

    /// Does something to the queue's ring, as its driver.
    fn ring(&self, act: impl FnOnce(&DriverRing<'_>)) {
        let state = self.transport.state();
        act(&DriverRing::new(&self.memory, &state.queues[0]));
    }
}

fn register(place: u8) -> Register {
    Register::ALL[usize::from(place) % Register::ALL.len()]
}
