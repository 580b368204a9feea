//! Starting and stopping the queues.

use super::ControlPlane;
use super::service::Service;
use crate::{ControlState, PendingWrite, Queues, Stop, VirtioDevice, WriteOutcome};

impl<D: VirtioDevice> ControlPlane<D> {
    /// Takes the queues of a [restored](crate::ControlPlaneBuilder::restore) device into service, if it
    /// is live. A reset, or a queue's stop, that was pending is done with this, as no queue is in
    /// service that it could wait for.
    pub fn resume(&mut self, queues: &mut impl Queues<D>) {
        for index in self.indices() {
            self.finish_stop(index);
        }
        self.finish_reset();
        self.start_all(queues);
    }

    /// A queue that was [`Draining`](Stop::Draining) has stopped: its live queue is dropped, and no
    /// request is in flight. Finishes the write that was pending for it, see
    /// [`is_pending`](Self::is_pending). Of any other queue this is nothing.
    pub fn queue_stopped(&mut self, index: u16) {
        let service = self.service.get_mut(usize::from(index));
        if let Some(service) = service.filter(|service| **service == Service::Draining) {
            *service = Service::Stopped;
            self.finish_stop(index);
            self.finish_reset();
        }
    }

    /// Whether queues still drain that this write waits for. To be asked after each
    /// [`queue_stopped`](Self::queue_stopped), for each write that came to
    /// [`WriteOutcome::Pending`] and was not answered: answer it if this is false.
    pub fn is_pending(&self, write: PendingWrite) -> bool {
        match write {
            PendingWrite::Reset => self.regs.reset_pending,
            PendingWrite::QueueStop(index) => {
                self.regs.queues.get(usize::from(index)).is_some_and(|queue| queue.stopping)
            }
        }
    }

    /// Starts every queue that can be served and is not in service.
    pub(super) fn start_all(&mut self, queues: &mut impl Queues<D>) {
        for index in self.indices() {
            self.start(index, queues);
        }
    }

    pub(super) fn start(&mut self, index: u16, queues: &mut impl Queues<D>) {
        let Some(config) = self.queue(index) else { return };
        if let Some(service @ Service::Stopped) = self.service.get_mut(usize::from(index)) {
            *service = Service::Started;
            queues.start(&self.device, &config, self.interrupt(index));
        }
    }

    /// Stops a queue for a write to its registers.
    pub(super) fn stop(&mut self, index: u16, queues: &mut impl Queues<D>) -> WriteOutcome {
        self.take_out(index, queues);
        self.finish_stop(index);
        self.outcome(PendingWrite::QueueStop(index))
    }

    /// Stops all queues for a reset.
    pub(super) fn reset(&mut self, queues: &mut impl Queues<D>) -> WriteOutcome {
        self.regs.reset_pending = true;
        self.stop_all(queues);
        self.finish_reset();
        self.outcome(PendingWrite::Reset)
    }

    pub(super) fn stop_all(&mut self, queues: &mut impl Queues<D>) {
        for index in self.indices() {
            self.take_out(index, queues);
        }
    }

    fn take_out(&mut self, index: u16, queues: &mut impl Queues<D>) {
        if let Some(service @ Service::Started) = self.service.get_mut(usize::from(index)) {
            *service = match queues.stop(index) {
                Stop::Done => Service::Stopped,
                Stop::Draining => Service::Draining,
            };
        }
    }

    fn outcome(&self, write: PendingWrite) -> WriteOutcome {
        if self.is_pending(write) { WriteOutcome::Pending(write) } else { WriteOutcome::Done }
    }

    /// Finishes the stop that the driver asked for, if it did and the queue is no longer in service.
    fn finish_stop(&mut self, index: u16) {
        let index = usize::from(index);
        let max = self.device.queue_max_sizes().get(index).copied();
        if let (Some(Service::Stopped), Some(queue), Some(max)) =
            (self.service.get(index), self.regs.queues.get_mut(index), max)
            && queue.stopping
        {
            queue.stop(max);
        }
    }

    /// Finishes the reset, if the driver asked for one and no queue is in service. The status reads 0
    /// from then on, and no earlier [`Interrupt`](crate::Interrupt) does anything any more.
    fn finish_reset(&mut self) {
        let stopped = self.service.iter().all(|service| *service == Service::Stopped);
        if self.regs.reset_pending && stopped {
            self.device.reset();
            self.regs = ControlState::after_reset(self.device.queue_max_sizes());
            self.interrupt.reset();
        }
    }

    fn indices(&self) -> std::ops::Range<u16> {
        // `ControlPlaneBuilder::build` checked that their number is a u16.
        0..u16::try_from(self.service.len()).unwrap_or(u16::MAX)
    }
}
