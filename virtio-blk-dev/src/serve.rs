use std::hint;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use virtio_mmio_dev::RingFault;
use vm_memory::GuestAddressSpace;

use crate::engine::Engine;
use crate::poller::Poller;
use crate::stats::HostError;
use crate::worker::Worker;

/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 16;

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

    /// The driver broke the ring, and has been told that the device needs a reset: nothing is served
    /// any more. Called once.
    fn broken(&mut self, fault: RingFault) {
        let _ = fault;
    }
}

impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// Serves the queue until `bell` says stop: polls as `poller` has it, and sleeps. Then
    /// [drains](Self::drain).
    ///
    /// # Errors
    /// What waiting gave. The worker has drained.
    pub fn serve(&mut self, poller: &mut Poller, bell: &mut impl Doorbell) -> io::Result<()> {
        let (mut waited, mut told) = (Ok(()), false);
        while waited.is_ok() && !bell.is_stopped() {
            let mut progress = self.poll();
            if let Some(error) = self.take_last_error() {
                bell.failed(&error);
            }
            if let Some(fault) = self.queue().fault().filter(|_| !told) {
                told = true;
                bell.broken(fault);
            }
            if progress.processed > 0 {
                poller.busy(Instant::now());
            }
            if progress.more || (progress.wait.is_none() && self.look_out(poller, bell)) {
                continue;
            }
            // The driver is told to notify, and what came meanwhile is done.
            progress = self.run();
            if progress.processed > 0 || progress.more {
                poller.busy(Instant::now());
                continue;
            }
            poller.sleeps(Instant::now());
            waited = bell.wait(self.as_fd().filter(|_| self.is_busy()), progress.wait);
        }
        self.drain();
        waited
    }

    /// Looks for work as long as `poller` allows; whether there is some.
    fn look_out(&mut self, poller: &mut Poller, bell: &impl Doorbell) -> bool {
        while poller.idle(Instant::now()) && !bell.is_stopped() {
            if self.looks(LOOKS) {
                return true;
            }
            hint::spin_loop();
        }
        false
    }
}
