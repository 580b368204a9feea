//! A guest on one disk, and whoever owns its bus.

use std::sync::{Arc, Mutex};

use virtio_blk_dev::BlockDevice;
use virtio_dev::{Interrupt, IrqLine, Positions, QueueConfig, Status, WriteOutcome};
use virtio_pci_dev::{PciAddress, PciState, PciTransport};

use super::rules::{self, DOORBELL, Event, Places};
use super::{FIELDS, Op, Report};
use crate::calls::{Call, Calls};
use crate::device::{DISK, Disk, Serving, Setup};
use crate::driver_ring::DriverRing;
use crate::memory::Memory;

/// No turn of a worker may look up more addresses: 32 requests of 32 buffers, several times over.
const LOOKUPS: u64 = 10_000;
/// No turn of a worker may answer more requests.
const BATCH: u64 = 256;
/// After this many turns in a row the guest is busy with itself: its own reads keep writing to its
/// ring.
const TURNS: usize = 64;

type Sent = Arc<Mutex<Vec<u32>>>;

pub(super) struct Guest {
    disk: Disk,
    read_only: bool,
    pub(super) memory: Arc<Memory>,
    pub(super) function: PciTransport<BlockDevice>,
    pub(super) places: Places,
    calls: Calls,
    sent: Sent,
    serving: Option<(QueueConfig, Serving)>,
    /// The features that an initialisation takes, of those offered.
    pub(super) features: u64,
    /// Resets and stops are done by [`Op::Finish`] only.
    late: bool,
    /// The queue's stop was asked for, and is not done.
    draining: bool,
    stale: Option<Interrupt>,
    /// A worker could not be had, or found its ring broken, since the last reset.
    gave_up: bool,
    report: Report,
}

/// What the guest's interrupt controller hears.
fn lines(sent: &Sent) -> impl Fn(u64, u32) -> Option<Arc<dyn IrqLine>> + Send + 'static {
    let sent = Arc::clone(sent);
    move |address, data| {
        let sent = Arc::clone(&sent);
        let line = move || sent.lock().expect("no panic").push(data);
        (address == DOORBELL).then(|| Arc::new(line) as Arc<dyn IrqLine>)
    }
}

impl Guest {
    pub(super) fn new(setup: Setup, features: u64, late: bool) -> Self {
        let disk = Disk::new(setup);
        let sent = Sent::default();
        let function = disk.function(lines(&sent)).build().expect("a function");
        let places = Places::of(&function.state().config_space);
        Self {
            function,
            places,
            calls: Calls::default(),
            disk,
            read_only: setup.read_only,
            memory: Memory::with(&[], 0),
            sent,
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
            Op::Write(place, value) => self.set(place, value.into()),
            Op::Set(place, value) => self.set(place, value.into()),
            Op::WriteRaw(offset, data) => self.write(PciAddress::Bar(offset.into()), &data),
            Op::ReadRaw(offset, len) => self.read(PciAddress::Bar(offset.into()), len),
            Op::WriteConfig(offset, data) => self.write(PciAddress::Config(offset), &data),
            Op::ReadConfig(offset, len) => self.read(PciAddress::Config(offset), len),
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
                self.write(PciAddress::Bar(0x1000), &[0, 0]);
            }
            Op::Fault(fault) => self.disk.inject(fault),
            Op::Entry(vector, bits, data) => {
                let address = DOORBELL | u64::from(bits & 2) << 40;
                self.entry(vector.into(), address, data.into(), bits & 1 != 0);
            }
            Op::Function(bits) => self.set_function(bits),
            Op::Window(offset, width, value) => self.window(offset, width, value),
            Op::ConfigChanged => {
                self.watched(Event::Config, |guest| guest.function.config_changed());
            }
        }
    }

    /// Ends everything in order, and looks whether it ended.
    pub(super) fn end(mut self) -> Report {
        self.finish();
        self.serve(TURNS);
        self.set(Op::place(0x14), 0);
        self.finish();
        let (mut state, fresh) = (self.function.state(), self.fresh());
        // The one thing that a reset must not set back.
        state.control.config_generation = fresh.control.config_generation;
        assert_eq!(state.control, fresh.control);
        assert_eq!(state.queue_vectors, fresh.queue_vectors);
        self.report
    }

    fn fresh(&self) -> PciState {
        self.disk.function(lines(&Sent::default())).build().expect("a function").state()
    }

    /// Looks at the disk, which nothing but a worker can have changed.
    fn disk_is_sound(&self) {
        self.disk.with_bytes(|bytes| {
            assert_eq!(bytes.len(), DISK, "the disk has another size");
            assert!(!self.read_only || bytes == Disk::contents(), "a read-only disk was written");
        });
    }

    /// Does something to the function, and looks whether it may have done what it did.
    fn watched<T>(&mut self, event: Event, act: impl FnOnce(&mut Self) -> T) -> T {
        let old = self.function.state();
        let interrupt = self.function.interrupt(0);
        let count = |interrupt: &Interrupt| interrupt.raised() + interrupt.suppressed();
        let before = count(&interrupt);
        let result = act(self);
        let sent = std::mem::take(&mut *self.sent.lock().expect("no panic"));
        rules::check(&old, &self.function, self.places, event, &sent);
        let new = self.function.state();
        // A worker's events are the queue's, but for the one that the device needs a reset.
        if event == Event::Worker
            && count(&interrupt) != before
            && old.control.status == new.control.status
        {
            rules::check_event(&new, self.places, &sent);
        }
        self.report.messages += sent.len() as u64;
        result
    }

    /// Writes a field of the common configuration.
    pub(super) fn set(&mut self, place: u8, value: u64) {
        let (offset, width) = FIELDS[usize::from(place) % FIELDS.len()];
        self.write(PciAddress::Bar(offset.into()), &value.to_le_bytes()[..width]);
    }

    pub(super) fn read(&mut self, address: PciAddress, len: u8) {
        let mut data = vec![0xee; usize::from(len) % 33];
        self.watched(Event::Read, |guest| match address {
            PciAddress::Config(offset) => guest.function.config_read(offset, &mut data),
            PciAddress::Bar(offset) => guest.function.bar_read(offset, &mut data),
        });
    }

    pub(super) fn write(&mut self, address: PciAddress, data: &[u8]) {
        let status = self.function.status();
        let interrupt = self.function.interrupt(0);
        let outcome = self.watched(Event::Write, |guest| match address {
            PciAddress::Config(at) => guest.function.config_write(at, data, &mut guest.calls),
            PciAddress::Bar(at) => guest.function.bar_write(at, data, &mut guest.calls),
        });
        let calls = self.calls.take();
        match outcome {
            WriteOutcome::Done => {}
            WriteOutcome::Ignored(_) => assert_eq!(calls, [], "for a write that was ignored"),
            WriteOutcome::Notify(queue) => {
                assert_eq!((queue, calls.as_slice()), (0, &[][..]));
                assert!(self.function.queue(0).is_some(), "a kick of a queue that is not there");
                self.serve(TURNS);
            }
            WriteOutcome::Pending(write) => {
                assert!(self.function.is_pending(write));
                assert!(self.draining || calls == [Call::Stop], "nothing is to be waited for");
            }
        }
        if !status.is_empty() && self.function.status().is_empty() {
            self.was_reset(interrupt);
        }
        for call in calls {
            match call {
                Call::DriverOk | Call::Failed | Call::ConfigWritten => {}
                Call::Start => {
                    assert!(self.function.queue(0).is_some(), "ready, and not there");
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

    /// Does what waits: ends the worker, then says so.
    pub(super) fn finish(&mut self) {
        if !std::mem::take(&mut self.draining) {
            return;
        }
        self.stop();
        let (interrupt, state) = (self.function.interrupt(0), self.function.state());
        self.watched(Event::Finish, |guest| guest.function.queue_stopped(0));
        if state.control.reset_pending {
            self.was_reset(interrupt);
        }
    }

    /// The function's earlier interrupt is stale.
    fn was_reset(&mut self, interrupt: Interrupt) {
        assert_eq!(self.function.status(), Status::empty());
        self.stale = Some(interrupt);
        self.gave_up = false;
        self.report.resets += 1;
    }

    fn start(&mut self) {
        let Some(config) = self.function.queue(0) else { return };
        assert!(self.serving.is_none(), "two workers for a queue");
        let serving = self.watched(Event::Worker, |guest| {
            guest.disk.serve(guest.function.control(), &config, &guest.memory)
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
        let told = self.function.status().contains(Status::DEVICE_NEEDS_RESET);
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
        let (ok, errors) = serving.answers();
        self.report.ok += ok;
        self.report.errors += errors;
        Some(serving.positions())
    }

    fn restore(&mut self) {
        let positions = self.stop();
        let mut state = self.function.state();
        let queue = &mut state.control.queues[0];
        match positions {
            Some(Positions { next_avail, next_used, broken }) => {
                (queue.next_avail, queue.next_used, queue.broken) = (next_avail, next_used, broken);
            }
            // Its ring could not be served, and its device waits for the reset.
            None => queue.broken |= self.gave_up,
        }
        let restored = self.disk.function(lines(&self.sent)).restore(&state);
        let restored = restored.unwrap_or_else(|error| panic!("{state:?}: {error}"));
        assert_eq!(restored.state(), state);
        self.watched(Event::Restored, |guest| guest.function = restored);
        self.stale = None;
        self.report.restores += 1;
        // What was to be done late is done, as there is no worker.
        self.draining = false;
        self.watched(Event::Finish, |guest| guest.function.resume(&mut guest.calls));
        if state.control.reset_pending {
            self.gave_up = false;
            self.report.resets += 1;
        }
        match self.calls.take()[..] {
            [] => {}
            [Call::Start] => self.start(),
            ref calls => panic!("{calls:?} of a function that is resumed"),
        }
    }

    /// Does something to the queue's ring, as its driver.
    fn ring(&self, act: impl FnOnce(&DriverRing<'_>)) {
        let state = self.function.state().control;
        act(&DriverRing::new(&self.memory, &state.queues[0]));
    }
}
