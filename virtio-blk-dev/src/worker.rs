use std::os::fd::BorrowedFd;

use virtio_mmio_dev::{Chain, LiveQueue};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use zerocopy::IntoBytes;

use crate::config::SERIAL_LEN;
use crate::engine::{Command, Completion, Engine};
use crate::inflight::{InFlight, Request};
use crate::params::Params;
use crate::request::{Action, Header, RequestKind, Status, decide, used_len};
use crate::stats::{HostError, Stats};
use crate::wait::wait_readable;

/// Requests taken by one [`Worker::run`], so that a guest that never stops asking can't keep its
/// caller from anything else, and the first answers don't wait for many more requests.
const BATCH: usize = 32;

/// What one [`Worker::run`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests answered.
    pub processed: u64,
    /// There may be more requests: run again, without waiting for a notification.
    pub more: bool,
}

/// One queue's data plane: takes requests, has an engine carry them out, and answers them in
/// whatever order they finish.
///
/// The caller [runs](Self::run) it when the driver notifies the queue, when the engine's
/// [descriptor](Self::as_fd) becomes readable, and once at the start; and [drains](Self::drain)
/// it before a reset of the device or queue is answered.
pub struct Worker<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> {
    queue: LiveQueue<R, D>,
    requests: Requests<D, E>,
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// A worker for `queue` with an engine of its own, over the image that the limits in `params`
    /// are of.
    pub fn new(queue: LiveQueue<R, D>, engine: E, params: &Params) -> Self {
        let requests = Requests {
            in_flight: InFlight::new(queue.size()),
            engine,
            params: *params,
            stats: Stats::default(),
            last_error: None,
        };
        Self { queue, requests }
    }

    /// Takes a bounded number of requests, hands over their I/O, answers what has finished, and
    /// interrupts at most once. Unless there is [more](Progress::more) to do, the driver will
    /// notify of its next request.
    pub fn run(&mut self) -> Progress {
        let before = self.requests.stats.requests();
        self.queue.disable_notification();
        let mut more = true;
        // Bounded even when the driver takes back what it made available, so that there is always
        // something new and never anything to take.
        for _ in 0..BATCH {
            match self.queue.pop() {
                Some(chain) => {
                    self.requests.start(&mut self.queue, chain);
                    // What is done lets go of its memory, however long the batch goes on.
                    self.requests.reap(&mut self.queue);
                }
                None if self.queue.enable_notification() => self.queue.disable_notification(),
                None => {
                    more = false;
                    break;
                }
            }
        }
        self.requests.engine.commit();
        self.requests.reap(&mut self.queue);
        self.queue.publish();
        let processed = self.requests.stats.requests().wrapping_sub(before);
        Progress { processed, more }
    }

    /// Waits until nothing is in flight and answers it: after this no guest memory is in use.
    /// Takes no new requests.
    pub fn drain(&mut self) {
        loop {
            self.requests.reap(&mut self.queue);
            if self.requests.engine.in_flight() == 0 || !wait(&self.requests.engine) {
                break;
            }
        }
        self.queue.publish();
    }

    /// [Drains](Self::drain), and gives the queue back.
    pub fn into_queue(mut self) -> LiveQueue<R, D> {
        self.drain();
        self.queue
    }

    /// The queue.
    pub fn queue(&self) -> &LiveQueue<R, D> {
        &self.queue
    }

    /// The rings were malformed: the driver has been told that the device needs a reset, and the
    /// worker takes no further requests.
    pub fn is_broken(&self) -> bool {
        self.queue.is_broken()
    }

    /// Readable when the engine has finished something; `None` if it never leaves anything
    /// unfinished.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.requests.engine.as_fd()
    }

    /// What the worker has done so far.
    pub fn stats(&self) -> Stats {
        self.requests.stats
    }

    /// The latest error of the host, once: for a log whose rate the caller limits. How many there
    /// were is in [`Stats::host_errors`].
    pub fn take_last_error(&mut self) -> Option<HostError> {
        self.requests.last_error.take()
    }
}

/// A worker without its queue.
struct Requests<D: GuestAddressSpace, E: Engine> {
    engine: E,
    in_flight: InFlight<D>,
    params: Params,
    stats: Stats,
    last_error: Option<HostError>,
}

impl<D: GuestAddressSpace, E: Engine> Requests<D, E> {
    /// Hands a request to the engine, or answers it at once.
    fn start<R: GuestAddressSpace>(&mut self, queue: &mut LiveQueue<R, D>, chain: Chain<D>) {
        let mut header = Header::default();
        let read = chain.copy_from(0, header.as_mut_bytes());
        let complete = matches!(read, Ok(Header::LEN));
        let (kind, sector) =
            if complete { (header.kind(), header.sector.get()) } else { (RequestKind::Other, 0) };
        let request = Request { chain, kind, sector };
        let action = if !complete || request.chain.writable_len() == 0 {
            // Without a place for the status the driver can't learn how the request went: it is
            // returned, and nothing else is done.
            Err(Status::IoErr)
        } else {
            decide(&header, request.data_out(), request.data_in(), &self.params)
        };
        let (command, range) = match action {
            Ok(Action::Read { offset }) => (Command::Read, (offset, request.data_in())),
            Ok(Action::Write { offset }) => (Command::Write, (offset, request.data_out())),
            Ok(Action::Flush) => (Command::Flush, (0, 0)),
            Ok(Action::GetId) => {
                let outcome = identify(&request, self.params.serial.as_bytes());
                return answer(queue, request, &outcome, &mut self.stats);
            }
            Err(status) => {
                return answer(queue, request, &Outcome::failed(status), &mut self.stats);
            }
        };
        match self.in_flight.start(request, command, self.params.write_through, range) {
            Ok(io) => self.engine.submit(io),
            Err(Some(request)) => {
                answer(queue, request, &Outcome::failed(Status::IoErr), &mut self.stats);
            }
            Err(None) => {}
        }
    }

    /// Answers what the engine has finished.
    fn reap<R: GuestAddressSpace>(&mut self, queue: &mut LiveQueue<R, D>) {
        let Self { engine, in_flight, stats, last_error, .. } = self;
        engine.poll_completions(&mut |Completion { io, result }| {
            let Some(request) = in_flight.finish(io) else { return };
            let outcome = match result {
                Ok(()) => Outcome::transferred(&request),
                Err(source) => {
                    stats.host_errors = stats.host_errors.wrapping_add(1);
                    let Request { kind, sector, .. } = request;
                    *last_error = Some(HostError { kind, sector, source });
                    Outcome::failed(Status::IoErr)
                }
            };
            answer(queue, request, &outcome, stats);
        });
    }
}

impl<D: GuestAddressSpace, E: Engine> Drop for Requests<D, E> {
    /// Unmaps the memory of what is in flight when the engine is done with it; the queue is gone,
    /// so nobody gets an answer.
    fn drop(&mut self) {
        let Self { engine, in_flight, .. } = self;
        loop {
            engine.poll_completions(&mut |completion| drop(in_flight.finish(completion.io)));
            if engine.in_flight() == 0 || !wait(engine) {
                break;
            }
        }
    }
}

/// Waits for `engine` to finish something; `false` if it has no way to tell.
fn wait<E: Engine>(engine: &E) -> bool {
    engine.as_fd().is_some_and(|fd| wait_readable(fd).is_ok())
}

/// How a request ended.
struct Outcome {
    status: Status,
    /// Bytes of the data before the status known to be written, from its start.
    written: u64,
    /// Bytes moved, for the statistics.
    moved: u64,
}

impl Outcome {
    const fn failed(status: Status) -> Self {
        Self { status, written: 0, moved: 0 }
    }

    fn transferred<D: GuestAddressSpace>(request: &Request<D>) -> Self {
        let (written, moved) = match request.kind {
            RequestKind::Read => (request.data_in(), request.data_in()),
            RequestKind::Write => (0, request.data_out()),
            _ => (0, 0),
        };
        Self { status: Status::Ok, written, moved }
    }
}

/// Copies as much of `serial` as there is room for (virtio 1.2 §5.2.6).
fn identify<D: GuestAddressSpace>(request: &Request<D>, serial: &[u8; SERIAL_LEN]) -> Outcome {
    let room = usize::try_from(request.data_in()).unwrap_or(usize::MAX).min(SERIAL_LEN);
    match request.chain.copy_to(0, serial.get(..room).unwrap_or_default()) {
        Ok(n) => Outcome { status: Status::Ok, written: n as u64, moved: n as u64 },
        Err(_) => Outcome::failed(Status::IoErr),
    }
}

/// Writes the status, after everything else, and stages the used entry.
fn answer<R: GuestAddressSpace, D: GuestAddressSpace>(
    queue: &mut LiveQueue<R, D>,
    request: Request<D>,
    outcome: &Outcome,
    stats: &mut Stats,
) {
    let len = if put_status(&request.chain, outcome.status) {
        used_len(request.data_in(), outcome.written)
    } else {
        stats.without_status = stats.without_status.wrapping_add(1);
        0
    };
    stats.count(request.kind, matches!(outcome.status, Status::Ok), outcome.moved);
    queue.complete(request.chain, len);
}

/// The status is the last byte the device may write, wherever that is. `false` if there is none,
/// or not in guest memory.
fn put_status<D: GuestAddressSpace>(chain: &Chain<D>, status: Status) -> bool {
    let Some(last) = chain.writable().last() else { return false };
    let Some(end) = last.addr.0.checked_add(u64::from(last.len).saturating_sub(1)) else {
        return false;
    };
    chain.memory().write_slice(&[status as u8], GuestAddress(end)).is_ok()
}
