//! The registers of the selected queue.

use super::MmioTransport;
use crate::{Effect, Ignored, QueueState, Register, Status, VirtioDevice, feature};

impl<D: VirtioDevice> MmioTransport<D> {
    /// Size and addresses of the selected queue.
    pub(super) fn set_queue_up(&mut self, register: Register, value: u32) -> Effect {
        let ignored = match self.selected_mut() {
            Some((_, queue, max)) => queue.set_up(register, value, max),
            None => Some(Ignored::NoQueue),
        };
        ignored.map_or(Effect::None, Effect::Ignored)
    }

    /// A driver may have a queue ready before it has its features accepted, as SeaBIOS 1.14 does:
    /// what the rings depend on is looked at when they go live.
    pub(super) fn write_queue_ready(&mut self, value: u32) -> Effect {
        let status = self.status();
        let Some((index, queue, max)) = self.selected_mut() else {
            return Effect::Ignored(Ignored::NoQueue);
        };
        match (value, queue.ready) {
            (1, false) => {
                let may = Status::DRIVER | Status::FAILED;
                if status.intersection(may) != Status::DRIVER || queue.size == 0 {
                    return Effect::Ignored(Ignored::QueueNotReady);
                }
                queue.ready = true;
                if status.contains(Status::DRIVER_OK) {
                    return Effect::QueueReady(index);
                }
            }
            (0, true) => {
                if status.contains(Status::DRIVER_OK) {
                    queue.stopping = true;
                    return Effect::QueueStop(index);
                }
                queue.stop(max);
            }
            _ => {}
        }
        Effect::None
    }

    pub(super) fn write_queue_reset(&mut self, value: u32) -> Effect {
        if value != 1 {
            return Effect::None;
        }
        if self.features() & feature::RING_RESET == 0 {
            return Effect::Ignored(Ignored::QueueReset);
        }
        if let Some((_, queue, _)) = self.selected_mut() {
            queue.resetting = queue.ready;
        }
        let effect = self.write_queue_ready(0);
        if let (Effect::None, Some((_, queue, max))) = (effect, self.selected_mut()) {
            queue.stop(max);
        }
        effect
    }

    pub(super) fn notify(&self, value: u32) -> Effect {
        // With NOTIFICATION_DATA the upper half holds ring positions (virtio 1.2 §4.2.3.3).
        let index =
            if self.features() & feature::NOTIFICATION_DATA != 0 { value & 0xffff } else { value };
        match u16::try_from(index) {
            Ok(index) if self.queue(index).is_some() => Effect::Notify(index),
            // Before DRIVER_OK it counts: going live is a notification of every queue.
            Ok(index) if self.is_to_go_live(index) => Effect::None,
            _ => Effect::Ignored(Ignored::NoQueue),
        }
    }

    fn is_to_go_live(&self, index: u16) -> bool {
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
