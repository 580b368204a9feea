use std::hint;
use std::io;
use std::os::fd::BorrowedFd;

use virtio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::pause::Pause;
use super::pipeline::RequestPipeline;
use super::poller::Poller;
use super::queue_waiter::QueueWaiter;
use super::{Worker, run_once};
use crate::engine::{Engine, StillInUse};

/// Checks of the ring between two readings of the clock.
const SPINS_PER_CLOCK_READING: u32 = 16;
/// Iterations of the worker in one batch. The rings and plain memory are looked up once a batch.
const RUNS_PER_BATCH: u32 = 64;

/// Why [`Worker::serve`] returned before it was told to stop, or could not drain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// [`QueueWaiter::wait`] failed. The worker has drained.
    #[error("the queue's thread can't wait for its driver")]
    Wait(#[source] io::Error),
    /// The worker couldn't [drain](Worker::drain): guest memory is still in use.
    #[error(transparent)]
    StillInUse(#[from] StillInUse),
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// Serves the queue until [`QueueWaiter::is_stopped`]: [works](Self::work), and waits when there is nothing to
    /// do. [Finishes](Self::finish) before it returns.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn serve(
        &mut self,
        poller: &mut Poller,
        waiter: &mut impl QueueWaiter,
    ) -> Result<(), ServeError> {
        let mut waited = Ok(());
        while waited.is_ok() {
            waited = match self.work(poller, waiter) {
                Pause::Stopped => break,
                Pause::Idle => waiter.wait(None, None),
                Pause::Waits(timeout) => waiter.wait(self.engine_in_flight(), timeout),
            };
        }
        self.finish(waited, waiter)
    }

    /// Serves the queue until there is nothing to do, or it is told to stop. Spins for as long as `poller` allows
    /// when there is no work. For a loop other than [`serve`](Self::serve)'s, which lets another thread
    /// [serve](Self::serve_inline) the queue while it waits.
    pub fn work(&mut self, poller: &mut Poller, waiter: &mut impl QueueWaiter) -> Pause {
        while !waiter.is_stopped() {
            let Self { queue, pipeline, .. } = self;
            let idle = queue.batch(|batch| run_busy(batch, pipeline, poller, waiter));
            if let Some(fault) = self.queue.fault().filter(|_| !self.fault_reported) {
                self.fault_reported = true;
                waiter.on_broken(fault);
            }
            if let Some(fault) = self.take_engine_fault() {
                waiter.on_engine_fault(&fault);
            }
            if !idle {
                continue;
            }
            // Enables notifications, and handles what arrived in the meantime.
            let progress = self.run();
            // A ring that was found broken just now is told of before the thread sleeps.
            let broken = !self.fault_reported && self.queue.fault().is_some();
            if progress.processed > 0 || progress.more || broken {
                poller.busy(self.pipeline.instant());
                continue;
            }
            poller.sleeps(self.pipeline.instant());
            if self.is_busy() {
                return Pause::Waits(progress.wait);
            }
            self.pipeline.operations.engine.idle();
            return progress.wait.map_or(Pause::Idle, |wait| Pause::Waits(Some(wait)));
        }
        Pause::Stopped
    }

    /// The engine's descriptor while it has something in flight, to be waited for after [`Pause::Waits`].
    pub fn engine_in_flight(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.is_busy())
    }

    /// [Drains](Self::drain), and reports what is left to report. `waited` is what the last wait came to.
    ///
    /// # Errors
    /// Waiting or draining failed. The driver has been told that the device needs a reset, which also
    /// happens if the worker panics and is dropped.
    pub fn finish(
        &mut self,
        waited: io::Result<()>,
        waiter: &mut impl QueueWaiter,
    ) -> Result<(), ServeError> {
        let drained = self.drain();
        if waited.is_err() || drained.is_err() {
            // No thread serves the queue any more; without this its driver would wait for ever.
            self.queue.give_up();
        }
        report_errors(&mut self.pipeline, waiter);
        if let Some(fault) = self.take_engine_fault() {
            waiter.on_engine_fault(&fault);
        }
        drained?;
        waited.map_err(ServeError::Wait)
    }
}

/// Runs the worker while there is work or `poller` allows spinning, for a bounded number of iterations.
/// Returns whether the queue is idle.
fn run_busy<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    pipeline: &mut RequestPipeline<D, E>,
    poller: &mut Poller,
    waiter: &mut impl QueueWaiter,
) -> bool {
    // One reading of the clock an iteration: the reading made when the last answers were published, or
    // while spinning, is also the start of the next iteration.
    pipeline.read_clock();
    for _ in 0..RUNS_PER_BATCH {
        let progress = run_once(batch, pipeline, false);
        report_errors(pipeline, waiter);
        if progress.processed > 0 {
            poller.busy(pipeline.instant());
        } else if progress.more {
            pipeline.read_clock();
        }
        if waiter.is_stopped() {
            return false;
        }
        if !progress.more && (progress.wait.is_some() || !spin(batch, pipeline, poller, waiter)) {
            return true;
        }
    }
    false
}

/// Reports the errors of the host.
fn report_errors<D: GuestAddressSpace, E: Engine>(
    pipeline: &mut RequestPipeline<D, E>,
    waiter: &mut impl QueueWaiter,
) {
    if let Some(error) = pipeline.durability_error.take() {
        waiter.on_durability_lost(&error);
    }
    if let Some(error) = pipeline.last_error.take() {
        waiter.on_host_error(&error);
    }
}

/// Spins for as long as `poller` allows. Returns whether there is work.
fn spin<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    pipeline: &mut RequestPipeline<D, E>,
    poller: &mut Poller,
    waiter: &impl QueueWaiter,
) -> bool {
    while poller.idle(pipeline.instant()) && !waiter.is_stopped() {
        for _ in 0..SPINS_PER_CLOCK_READING {
            if batch.is_available() || pipeline.has_completions() {
                return true;
            }
            hint::spin_loop();
        }
        pipeline.read_clock();
    }
    false
}
