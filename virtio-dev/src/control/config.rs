//! Accesses to the configuration space.

use super::ControlPlane;
use crate::{ConfigWrite, Ignored, Queues, Status, VirtioDevice, WriteOutcome};

impl<D: VirtioDevice> ControlPlane<D> {
    /// Answers a read of 1, 2, 4 or 8 bytes at `offset` of the configuration space. What is not there
    /// keeps what `data` has.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config =
            usize::try_from(offset).ok().and_then(|offset| self.device.config().get(offset..));
        if let (1 | 2 | 4 | 8, Some(config)) = (data.len(), config) {
            for (byte, value) in data.iter_mut().zip(config) {
                *byte = *value;
            }
        }
    }

    /// Takes a write of 1, 2, 4 or 8 bytes at `offset` of the configuration space.
    pub fn write_config(
        &mut self,
        offset: u64,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        if self.regs.reset_pending {
            return WriteOutcome::Ignored(Ignored::ResetPending);
        }
        let end = usize::try_from(offset)
            .ok()
            .and_then(|offset| Some((offset, offset.checked_add(data.len())?)));
        let written = match (data.len(), end) {
            (1 | 2 | 4 | 8, Some((offset, end)))
                if end <= self.device.config().len() && self.status().contains(Status::DRIVER) =>
            {
                self.device.write_config(offset, data)
            }
            _ => ConfigWrite::Ignored,
        };
        match written {
            ConfigWrite::Ignored => return WriteOutcome::Ignored(Ignored::Config),
            ConfigWrite::Unchanged => {}
            // Another vCPU may be reading the configuration space.
            ConfigWrite::Changed => self.interrupt.next_generation(),
        }
        queues.config_written();
        WriteOutcome::Done
    }
}
