use std::hint;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use virtio_mmio_dev::{Batch, RingFault};
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::pipeline::Requests;
use super::poller::Poller;
use super::{Worker, turn};
use crate::engine::{Engine, EngineFault, StillInUse};
use crate::stats::HostError;

/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 16;
/// Turns in one batch, for which the rings and plain memory are looked up once.
const TURNS: u32 = 64;

/// What the thread that [serves](Worker::serve) a queue hears of the world by.
pub trait Doorbell {
    /// The queue is to be given up.
    fn is_stopped(&self) -> bool;

    /// Sleeps until the driver has notified the queue, `engine` is readable, or `timeout` is over;
    /// or for no reason at all. A notification that came before must not be lost.
    ///
    /// # Errors
    /// It can't be waited: the queue is given up.
    fn wait(&mut self, engine: Option<BorrowedFd<'_>>, timeout: Option<Duration>)
    -> io::Result<()>;

    /// The host failed a request; the guest has been told. For a log whose rate is limited.
    fn failed(&mut self, error: &HostError) {
        let _ = error;
    }

    /// A flush failed, or a write that was to be stable: what the guest wrote may be lost, and no
    /// flush of the disk succeeds until its image is opened anew. Called once for a disk, by the
    /// queue that met it. For a log, whatever its rate.
    fn lost(&mut self, error: &HostError) {
        let _ = error;
    }

    /// The driver broke the ring, and has been told that the device needs a reset: nothing is served
    /// any more. Called once.
    fn broken(&mut self, fault: RingFault) {
        let _ = fault;
    }

    /// The engine doesn't work as it was made to. What is asked of it is answered all the same.
    /// Called once.
    fn engine_failed(&mut self, fault: &EngineFault) {
        let _ = fault;
    }
}

/// Why [`Worker::serve`] ended before its time, or not well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The driver can't be waited for. The worker has drained.
    #[error("the queue's thread can't wait for its driver")]
    Wait(#[source] io::Error),
    /// The worker couldn't [drain](Worker::drain): guest memory is still in use.
    #[error(transparent)]
    StillInUse(#[from] StillInUse),
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// Serves the queue until `bell` says stop: polls as `poller` has it, and sleeps. Then
    /// [drains](Self::drain).
    ///
    /// # Errors
    /// What waiting gave, or draining. The driver has been told that the device needs a reset, as it
    /// also is if this panics and the worker is dropped.
    pub fn serve(
        &mut self,
        poller: &mut Poller,
        bell: &mut impl Doorbell,
    ) -> Result<(), ServeError> {
        let (mut waited, mut told) = (Ok(()), false);
        while waited.is_ok() && !bell.is_stopped() {
            let Self { queue, requests } = self;
            let idle = queue.batch(|batch| stay(batch, requests, poller, bell));
            if let Some(fault) = self.queue.fault().filter(|_| !told) {
                told = true;
                bell.broken(fault);
            }
            if let Some(fault) = self.take_engine_fault() {
                bell.engine_failed(&fault);
            }
            if !idle {
                continue;
            }
            // The driver is told to notify, and what came meanwhile is done.
            let progress = self.run();
            if progress.processed > 0 || progress.more {
                poller.busy(self.requests.instant());
                continue;
            }
            poller.sleeps(self.requests.instant());
            if !self.is_busy() {
                self.requests.operations.engine.rest();
            }
            waited = bell.wait(self.as_fd().filter(|_| self.is_busy()), progress.wait);
        }
        let drained = self.drain();
        if waited.is_err() || drained.is_err() {
            // Nobody serves it from here on, which its driver would wait for.
            self.queue.give_up();
        }
        tell(&mut self.requests, bell);
        if let Some(fault) = self.take_engine_fault() {
            bell.engine_failed(&fault);
        }
        drained?;
        waited.map_err(ServeError::Wait)
    }
}

/// Works, and looks for more, as long as `poller` allows, but not for ever in one batch. Whether
/// there is nothing to do.
fn stay<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    requests: &mut Requests<D, E>,
    poller: &mut Poller,
    bell: &mut impl Doorbell,
) -> bool {
    // One look a turn: that with which the answers of the last were published, or with which the
    // poller looked for work, is also when the next turn begins.
    requests.look_at_clock();
    for _ in 0..TURNS {
        let progress = turn(batch, requests, false);
        tell(requests, bell);
        if progress.processed > 0 {
            poller.busy(requests.instant());
        } else if progress.more {
            requests.look_at_clock();
        }
        if bell.is_stopped() {
            return false;
        }
        if !progress.more && (progress.wait.is_some() || !look_out(batch, requests, poller, bell)) {
            return true;
        }
    }
    false
}

/// Tells of what the host failed at.
fn tell<D: GuestAddressSpace, E: Engine>(requests: &mut Requests<D, E>, bell: &mut impl Doorbell) {
    if let Some(error) = requests.loss.take() {
        bell.lost(&error);
    }
    if let Some(error) = requests.last_error.take() {
        bell.failed(&error);
    }
}

/// Looks for work as long as `poller` allows; whether there is some.
fn look_out<M: GuestMemory, D: GuestAddressSpace, E: Engine>(
    batch: &mut Batch<'_, M, D>,
    requests: &mut Requests<D, E>,
    poller: &mut Poller,
    bell: &impl Doorbell,
) -> bool {
    while poller.idle(requests.instant()) && !bell.is_stopped() {
        for _ in 0..LOOKS {
            if batch.is_available() || requests.has_completions() {
                return true;
            }
            hint::spin_loop();
        }
        requests.look_at_clock();
    }
    false
}
