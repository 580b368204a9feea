//! The data plane of one queue.

mod active_limits;
mod admission;
mod answers;
mod canceller;
mod crowding;
mod flushes;
mod inflight;
mod inline;
mod inline_rest;
mod limit;
mod limiter_view;
mod operations;
mod overlap;
mod pause;
mod pipeline;
mod poller;
mod queue_waiter;
mod rate_limiter;
mod rate_limits;
mod serve;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use virtio_dev::{Batch, LiveQueue};
use vm_memory::{GuestAddressSpace, GuestMemory};

use crate::device::Params;
use crate::engine::{Engine, EngineFault, StillInUse, Taken};
use crate::stats::{Counters, HostError, Stats};
use inline_rest::InlineRest;
use limiter_view::LimiterView;
use pipeline::RequestPipeline;

pub use canceller::Canceller;
pub use inline::InlineLimit;
pub use pause::Pause;
pub use poller::Poller;
pub use queue_waiter::QueueWaiter;
pub use rate_limiter::RateLimiter;
pub use rate_limits::{Rate, RateLimits};
pub use serve::ServeError;

/// The most requests that one [`Worker::run`] takes: it bounds how long the call takes however many
/// requests the guest adds, and how long the first ones wait for their answers.
const BATCH: usize = 32;
/// Bytes of data after which, within a batch, pending operations are submitted and completed ones
/// published: with large requests the driver shouldn't wait for the rest of the batch.
const BATCH_BYTES: u64 = 256 << 10;

/// What one [`Worker::run`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests answered.
    pub processed: u64,
    /// There may be more requests: call again without waiting for a notification.
    pub more: bool,
    /// A rate limit delays the next request: call again after this time.
    pub wait: Option<Duration>,
}

/// The data plane of one queue: takes requests from the ring, submits their I/O to an engine, and
/// completes them in the order in which the engine finishes.
///
/// The caller [runs](Self::run) it when the driver notifies the queue, when the engine's
/// [descriptor](Self::as_fd) becomes readable, and once at the start; and [drains](Self::drain)
/// it before a reset of the device or queue is answered. [`serve`](Self::serve) is the loop of a
/// thread that does nothing else.
pub struct Worker<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> {
    pub(crate) queue: LiveQueue<R, D>,
    pub(crate) pipeline: RequestPipeline<D, E>,
    pub(crate) inline_rest: InlineRest,
    /// The ring's fault was reported.
    pub(crate) fault_reported: bool,
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// A worker for `queue`. `engine` must be over the image that `params` describes.
    ///
    /// An engine passed as `&mut` can serve another queue afterwards.
    ///
    /// If the device offers `VIRTIO_F_IN_ORDER` and `engine` doesn't
    /// [complete in order](Engine::completes_in_order), the queue is
    /// [given up](LiveQueue::give_up): nothing is served, and the driver is told that the device needs
    /// a reset.
    pub fn new(queue: LiveQueue<R, D>, engine: E, params: &Params) -> Self {
        Self::with_counters(queue, engine, params, Arc::default())
    }

    /// As [`new`](Self::new), with counters that other threads may read meanwhile.
    pub fn with_counters(
        queue: LiveQueue<R, D>,
        engine: E,
        params: &Params,
        counters: Arc<Counters>,
    ) -> Self {
        let mut queue = queue;
        if params.in_order && !engine.completes_in_order() {
            // The driver matches completions to requests by their order.
            queue.give_up();
        }
        let pipeline = RequestPipeline::new(queue.size(), engine, params.clone(), counters);
        Self { queue, pipeline, inline_rest: InlineRest::default(), fault_reported: false }
    }

    /// Sets a rate limit, which the workers of a disk share.
    #[must_use]
    pub fn with_rate_limiter(mut self, limiter: Arc<RateLimiter>) -> Self {
        self.pipeline.limits = LimiterView::new(limiter);
        self
    }

    /// Sets the greatest number of bytes that one operation discards, zeroes or erases. Longer ranges are
    /// split. The default is 1 GiB.
    #[must_use]
    pub fn with_range_piece(mut self, bytes: u64) -> Self {
        self.pipeline.in_flight.piece = bytes;
        self
    }

    /// Uses an existing canceller instead of a new one.
    #[must_use]
    pub fn with_canceller(mut self, canceller: Canceller) -> Self {
        self.pipeline.set_canceller(canceller);
        self
    }

    /// Lets another thread end long requests early, before it resets the device or the queue.
    pub fn canceller(&self) -> Canceller {
        self.pipeline.in_flight.canceller.clone()
    }

    /// Takes a bounded number of requests, submits their I/O, completes what has finished, and
    /// interrupts at most once for every 256 KiB of data. Notifications are enabled on return, unless
    /// there is [more](Progress::more) to do.
    pub fn run(&mut self) -> Progress {
        self.run_batch(true)
    }

    /// As [`run`](Self::run), but leaves notifications disabled: for a caller that polls.
    pub fn poll(&mut self) -> Progress {
        self.run_batch(false)
    }

    /// Whether operations are in flight in the engine.
    pub(crate) fn is_busy(&self) -> bool {
        self.pipeline.operations.engine.in_flight() > 0
    }

    fn run_batch(&mut self, arm: bool) -> Progress {
        let Self { queue, pipeline, .. } = self;
        pipeline.read_clock();
        queue.batch(|batch| run_once(batch, pipeline, arm))
    }

    /// Waits for everything in flight and completes it: after this no guest memory is in use. Takes no
    /// new requests. A request that a rate limit delays is put back into the available ring. Lists of
    /// ranges are processed to their end, unless they were [cancelled](Self::canceller).
    ///
    /// # Errors
    /// Operations are left in the engine, and it can't be known when they end: their guest memory is
    /// still in use and must be neither unmapped nor reused. Dropping the worker then leaks the guards on
    /// that memory. The caller has to leak memory that no guard keeps mapped.
    pub fn drain(&mut self) -> Result<(), StillInUse> {
        let Self { queue, pipeline, .. } = self;
        pipeline.read_clock();
        queue.batch(|batch| {
            pipeline.handle_cache_switch();
            pipeline.put_back(batch);
            pipeline.flush_and_publish(batch);
            while pipeline.operations.engine.in_flight() > 0 {
                pipeline.operations.engine.wait()?;
                pipeline.flush_and_publish(batch);
            }
            pipeline.operations.engine.idle();
            Ok(())
        })
    }

    /// [Drains](Self::drain), and returns the queue.
    ///
    /// # Errors
    /// As [`drain`](Self::drain). The queue is dropped with the worker then.
    pub fn into_queue(mut self) -> Result<LiveQueue<R, D>, StillInUse> {
        self.drain()?;
        Ok(self.queue)
    }

    /// The queue.
    pub fn queue(&self) -> &LiveQueue<R, D> {
        &self.queue
    }

    /// Whether the rings were malformed: the driver has been told that the device needs a reset, and
    /// the worker takes no further requests.
    pub fn is_broken(&self) -> bool {
        self.queue.is_broken()
    }

    /// Readable when the engine has completions; `None` if it completes everything synchronously.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipeline.operations.engine.as_fd()
    }

    /// A copy of the counters.
    pub fn stats(&self) -> Stats {
        self.pipeline.counters.read()
    }

    /// The counters, which other threads may read at any time.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.pipeline.counters)
    }

    /// The error by which the disk lost its [`Durability`](crate::Durability): returned once, by the
    /// worker whose operation failed. Log it without a rate limit.
    pub fn take_durability_error(&mut self) -> Option<HostError> {
        self.pipeline.durability_error.take()
    }

    /// The latest error of the host, returned once: meant for a rate-limited log.
    /// [`Stats::host_errors`] counts all of them.
    pub fn take_last_error(&mut self) -> Option<HostError> {
        self.pipeline.last_error.take()
    }

    /// The failure of the engine, if it had one: returned once.
    pub fn take_engine_fault(&mut self) -> Option<EngineFault> {
        self.pipeline.operations.engine.take_fault()
    }
}

impl<R: GuestAddressSpace, D: GuestAddressSpace> Worker<R, D, Box<dyn Engine>> {
    /// Drops the worker, and returns its engine. [Drain](Self::drain) it before: otherwise the memory of what the engine
    /// has in flight is leaked.
    pub fn into_engine(mut self) -> Box<dyn Engine> {
        // No allocation: it has no size.
        std::mem::replace(&mut self.pipeline.operations.engine, Box::new(Taken))
    }
}

/// One iteration of a worker: [`Worker::run`] if `arm`, else [`Worker::poll`]. Requests that it takes
/// count from the last reading of the clock.
pub(crate) fn run_once<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    pipeline: &mut RequestPipeline<D, E>,
    arm: bool,
) -> Progress {
    let before = pipeline.answered();
    pipeline.handle_cache_switch();
    pipeline.reap(batch);
    batch.disable_notification();
    let (mut more, mut wait) = (true, pipeline.resume(batch));
    // Under a limit, the next chain's turn may be long after this.
    batch.look_ahead(if pipeline.limits.is_limited() { 0 } else { BATCH }, BATCH_BYTES);
    // The loop is bounded even if the driver moves its index back and forth, so that the ring always
    // looks non-empty and nothing can be taken.
    for _ in 0..BATCH {
        if wait.is_some() {
            break;
        }
        let Some(chain) = batch.pop() else {
            more = false;
            break;
        };
        wait = pipeline.start_request(batch, chain);
        if pipeline.unpublished_bytes() >= BATCH_BYTES {
            pipeline.flush_and_publish(batch);
        }
    }
    pipeline.flush_and_publish(batch);
    // Enabled last: requests that arrived during this call need no notification.
    if arm && !more {
        more = batch.enable_notification();
    }
    let processed = pipeline.answered().wrapping_sub(before);
    Progress { processed, more: more && wait.is_none(), wait }
}
