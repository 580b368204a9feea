//! The registers of the selected queue.

use super::{Effect, MmioTransport};
use crate::{QueueState, Status, VirtioDevice, feature};

impl<D: VirtioDevice> MmioTransport<D> {
    pub(super) fn write_queue_ready(&mut self, value: u32) -> Effect {
        let status = self.status();
        let Some((index, queue, max)) = self.selected_mut() else {
            return Effect::None;
        };
        match value {
            // Rings depend on the features: a queue becomes ready after they are final.
            1 if status.contains(Status::FEATURES_OK)
                && !status.contains(Status::FAILED)
                && !queue.ready
                && queue.size != 0 =>
            {
                queue.ready = true;
                if status.contains(Status::DRIVER_OK) {
                    return Effect::QueueReady(index);
                }
            }
            0 if queue.ready => {
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
        if value != 1 || self.features() & feature::RING_RESET == 0 {
            return Effect::None;
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
