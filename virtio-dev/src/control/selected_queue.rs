//! The registers of the selected queue.

use super::ControlPlane;
use crate::{
    CommonField, Ignored, QueueState, Queues, Status, VirtioDevice, WriteOutcome, feature,
};

impl<D: VirtioDevice> ControlPlane<D> {
    /// Size and addresses of the selected queue.
    pub(super) fn set_queue_up(&mut self, field: CommonField, value: u32) -> WriteOutcome {
        let ignored = match self.selected_mut() {
            Some((_, queue, max)) => queue.set_up(field, value, max),
            None => Some(Ignored::NoQueue),
        };
        ignored.map_or(WriteOutcome::Done, WriteOutcome::Ignored)
    }

    /// A driver may have a queue ready before it has its features accepted, as SeaBIOS 1.14 does:
    /// features are applied to the queue at `DRIVER_OK`.
    pub(super) fn write_queue_ready(
        &mut self,
        value: u32,
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        let status = self.status();
        let Some((index, queue, _)) = self.selected_mut() else {
            return WriteOutcome::Ignored(Ignored::NoQueue);
        };
        match (value, queue.ready) {
            (1, false) => {
                let may = Status::DRIVER | Status::FAILED;
                if status.intersection(may) != Status::DRIVER || queue.size == 0 {
                    return WriteOutcome::Ignored(Ignored::QueueNotReady);
                }
                queue.ready = true;
                self.start(index, queues);
            }
            (0, true) => {
                queue.stopping = true;
                return self.stop(index, queues);
            }
            _ => {}
        }
        WriteOutcome::Done
    }

    pub(super) fn write_queue_reset(
        &mut self,
        value: u32,
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        if value != 1 {
            return WriteOutcome::Done;
        }
        if self.features() & feature::RING_RESET == 0 {
            return WriteOutcome::Ignored(Ignored::QueueReset);
        }
        let Some((index, queue, _)) = self.selected_mut() else {
            return WriteOutcome::Ignored(Ignored::NoQueue);
        };
        (queue.stopping, queue.resetting) = (true, true);
        self.stop(index, queues)
    }

    /// The driver notified the device, with this value: the index of a queue, and ring positions above
    /// it with `NOTIFICATION_DATA` (virtio 1.2 §2.9).
    #[inline]
    pub fn notify(&self, value: u32) -> WriteOutcome {
        if self.regs.reset_pending {
            return WriteOutcome::Ignored(Ignored::ResetPending);
        }
        let index =
            if self.features() & feature::NOTIFICATION_DATA != 0 { value & 0xffff } else { value };
        match u16::try_from(index) {
            Ok(index) if self.queue(index).is_some() => WriteOutcome::Notify(index),
            // Not lost before DRIVER_OK: each queue is started as notified.
            Ok(index) if self.may_be_started(index) => WriteOutcome::Done,
            _ => WriteOutcome::Ignored(Ignored::NoQueue),
        }
    }

    fn may_be_started(&self, index: u16) -> bool {
        let ended = Status::DRIVER_OK | Status::FAILED;
        !self.status().intersects(ended) && self.regs.queues.get(usize::from(index)).is_some()
    }

    pub(super) fn selected(&self) -> Option<&QueueState> {
        let index = usize::try_from(self.regs.queue_sel).ok()?;
        self.regs.queues.get(index)
    }

    pub(super) fn selected_max(&self) -> Option<u16> {
        let index = usize::try_from(self.regs.queue_sel).ok()?;
        self.device.queue_max_sizes().get(index).copied()
    }

    pub(super) fn selected_mut(&mut self) -> Option<(u16, &mut QueueState, u16)> {
        let max = self.selected_max()?;
        let index = u16::try_from(self.regs.queue_sel).ok()?;
        let queue = self.regs.queues.get_mut(usize::from(index))?;
        Some((index, queue, max))
    }
}
