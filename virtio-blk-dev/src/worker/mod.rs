//! The data plane of one queue.

mod admission;
mod answers;
mod canceller;
mod clock;
mod flushes;
mod inflight;
mod operations;
mod overlap;
mod pipeline;
mod poller;
mod queue_waiter;
mod rate_limit;
mod serve;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use virtio_mmio_dev::{Batch, LiveQueue};
use vm_memory::{GuestAddressSpace, GuestMemory};

use crate::device::Params;
use crate::engine::{Engine, EngineFault, StillInUse};
use crate::stats::{Counters, HostError, Stats};
use pipeline::Requests;

pub use canceller::Canceller;
pub use poller::Poller;
pub use queue_waiter::QueueWaiter;
pub use rate_limit::{Rate, RateLimiter, RateLimits, Reservation};
pub use serve::ServeError;

/// Requests taken by one [`Worker::run`], so that a guest that never stops asking can't keep its
/// caller from anything else, and the first answers don't wait for many more requests.
const BATCH: usize = 32;
/// Bytes of data after which what was taken is begun, and what is done published, in mid-batch: a
/// few large requests are work enough for the driver not to wait for more.
const BATCH_BYTES: u64 = 256 << 10;

/// What one [`Worker::run`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests answered.
    pub processed: u64,
    /// There may be more requests: run again, without waiting for a notification.
    pub more: bool,
    /// A rate limit holds requests back: run again after this time.
    pub wait: Option<Duration>,
}

/// One queue's data plane: takes requests, has an engine carry them out, and answers them in
/// whatever order they finish.
///
/// The caller [runs](Self::run) it when the driver notifies the queue, when the engine's
/// [descriptor](Self::as_fd) becomes readable, and once at the start; and [drains](Self::drain)
/// it before a reset of the device or queue is answered. [`serve`](Self::serve) is the loop of a
/// thread that does nothing else.
pub struct Worker<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> {
    pub(crate) queue: LiveQueue<R, D>,
    pub(crate) requests: Requests<D, E>,
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// A worker for `queue` with an engine of its own, over the image that the limits in `params`
    /// are of.
    ///
    /// An engine that is only lent, as `&mut`, can serve another queue afterwards.
    ///
    /// If the device offers `VIRTIO_F_IN_ORDER` and `engine` doesn't
    /// [complete in order](Engine::completes_in_order), the queue is
    /// [given up](LiveQueue::give_up): nothing is served, and the driver is told that the device needs
    /// a reset.
    pub fn new(queue: LiveQueue<R, D>, engine: E, params: &Params) -> Self {
        Self::with_counters(queue, engine, params, Arc::default())
    }

    /// As [`new`](Self::new), counting in `counters`, which others may read meanwhile.
    pub fn with_counters(
        queue: LiveQueue<R, D>,
        engine: E,
        params: &Params,
        counters: Arc<Counters>,
    ) -> Self {
        let mut queue = queue;
        if params.in_order && !engine.completes_in_order() {
            // Its driver would take one request for another.
            queue.give_up();
        }
        let requests = Requests::new(queue.size(), engine, params.clone(), counters);
        Self { queue, requests }
    }

    /// The worker, held to a limit that it shares with the others of its disk.
    #[must_use]
    pub fn with_rate_limiter(mut self, limiter: Arc<RateLimiter>) -> Self {
        self.requests.limiter = Some(limiter);
        self
    }

    /// The worker, which has discards, zeroes and secure erases carried out in pieces of so many bytes
    /// at most, instead of 1 GiB.
    #[must_use]
    pub fn with_range_piece(mut self, bytes: u64) -> Self {
        self.requests.in_flight.piece = bytes;
        self
    }

    /// The worker, with a canceller that others have already.
    #[must_use]
    pub fn with_canceller(mut self, canceller: Canceller) -> Self {
        self.requests.set_canceller(canceller);
        self
    }

    /// By what another thread ends long requests early, before it resets the device or the queue.
    pub fn canceller(&self) -> Canceller {
        self.requests.in_flight.canceller.clone()
    }

    /// Takes a bounded number of requests, hands over their I/O, answers what has finished, and
    /// interrupts at most once for every 256 KiB of data. Unless there is [more](Progress::more) to
    /// do, the driver will notify of its next request.
    pub fn run(&mut self) -> Progress {
        self.run_batch(true)
    }

    /// As [`run`](Self::run), but the driver needn't notify of its next request: for a caller that
    /// calls again soon.
    pub fn poll(&mut self) -> Progress {
        self.run_batch(false)
    }

    /// Whether the engine has something in hand.
    pub(crate) fn is_busy(&self) -> bool {
        self.requests.operations.engine.in_flight() > 0
    }

    fn run_batch(&mut self, arm: bool) -> Progress {
        let Self { queue, requests } = self;
        requests.look_at_clock();
        queue.batch(|batch| run_once(batch, requests, arm))
    }

    /// Waits until nothing is in flight and answers it: after this no guest memory is in use.
    /// Takes no new requests; what a rate limit holds back is left to the driver, as if it had not
    /// been taken. Lists of ranges are carried out to their end, unless
    /// [`canceller`](Self::canceller) says that nobody waits for that.
    ///
    /// # Errors
    /// The engine can't tell when it will be done with what is left: guest memory is still in use,
    /// and mustn't be unmapped or taken for free. A worker that is dropped then leaks the guards on
    /// that memory; memory that no guard keeps mapped is the caller's to leak.
    pub fn drain(&mut self) -> Result<(), StillInUse> {
        let Self { queue, requests } = self;
        requests.look_at_clock();
        queue.batch(|batch| {
            requests.begin();
            requests.put_back(batch);
            requests.finish_part(batch);
            while requests.operations.engine.in_flight() > 0 {
                requests.operations.engine.wait()?;
                requests.finish_part(batch);
            }
            requests.operations.engine.idle();
            Ok(())
        })
    }

    /// [Drains](Self::drain), and gives the queue back.
    ///
    /// # Errors
    /// As of [`drain`](Self::drain). The queue is gone then, with the worker.
    pub fn into_queue(mut self) -> Result<LiveQueue<R, D>, StillInUse> {
        self.drain()?;
        Ok(self.queue)
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
        self.requests.operations.engine.as_fd()
    }

    /// What the worker has done so far.
    pub fn stats(&self) -> Stats {
        self.requests.counters.read()
    }

    /// The same for other threads, to be read at any time.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.requests.counters)
    }

    /// The error by which the disk lost its [`Durability`](crate::Durability), once, from the worker
    /// that met it: the operator must learn of it, whatever else the log leaves out.
    pub fn take_durability_error(&mut self) -> Option<HostError> {
        self.requests.loss.take()
    }

    /// The latest error of the host, once: for a log whose rate the caller limits. How many there
    /// were is in [`Stats::host_errors`].
    pub fn take_last_error(&mut self) -> Option<HostError> {
        self.requests.last_error.take()
    }

    /// Why the engine doesn't work as it was made to, once.
    pub fn take_engine_fault(&mut self) -> Option<EngineFault> {
        self.requests.operations.engine.take_fault()
    }
}

/// One iteration of a worker: [`Worker::run`] if `arm`, else [`Worker::poll`]. Requests that it takes
/// count from the last reading of the clock.
pub(crate) fn run_once<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    requests: &mut Requests<D, E>,
    arm: bool,
) -> Progress {
    let before = requests.answered();
    requests.begin();
    requests.reap(batch);
    batch.disable_notification();
    let (mut more, mut wait) = (true, requests.resume(batch));
    // Bounded even when the driver takes back what it made available, so that there is always
    // something new and never anything to take.
    for _ in 0..BATCH {
        if wait.is_some() {
            break;
        }
        let Some(chain) = batch.pop() else {
            more = false;
            break;
        };
        wait = requests.start(batch, chain);
        if requests.begun_bytes() >= BATCH_BYTES {
            requests.finish_part(batch);
        }
    }
    requests.finish_part(batch);
    // Not before: what the driver asks for meanwhile needs no notification.
    if arm && !more {
        more = batch.enable_notification();
    }
    let processed = requests.answered().wrapping_sub(before);
    Progress { processed, more: more && wait.is_none(), wait }
}
