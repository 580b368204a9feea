//! Accesses to the common configuration structure (virtio 1.2 §4.1.4.3).

use virtio_dev::{CommonField, Ignored, Queues, VirtioDevice, WriteOutcome};

use super::PciTransport;
use crate::bytes::{high, join, low, put, value};
use crate::common_config::Field;
use crate::msix::NO_VECTOR;

impl<D: VirtioDevice> PciTransport<D> {
    pub(super) fn read_common(&self, offset: u32, data: &mut [u8]) {
        let value = match Field::at(offset, data.len()) {
            Some(Field::Shared(field)) => self.control.read(field).into(),
            Some(Field::Address(low, high)) => {
                join(self.control.read(high), self.control.read(low))
            }
            Some(Field::ConfigVector) => self.vectors().config_vector().into(),
            Some(Field::NumQueues) => self.queue_count().into(),
            Some(Field::QueueVector) => {
                self.selected().map_or(NO_VECTOR, |queue| self.vectors().queue_vector(queue)).into()
            }
            Some(Field::QueueEnable) => self.control.read(CommonField::QueueReady).into(),
            Some(Field::QueueNotifyOff) => self.selected().unwrap_or(0).into(),
            Some(Field::QueueNotifyData) | None => 0,
        };
        put(value, data);
    }

    pub(super) fn write_common(
        &mut self,
        offset: u32,
        data: &[u8],
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        let Some(field) = Field::at(offset, data.len()) else {
            return WriteOutcome::Ignored(Ignored::Width);
        };
        let value = value(data);
        match field {
            Field::Shared(CommonField::Status) if value == 0 => {
                // No message after the reset that the driver asks for here, nor before it assigns
                // vectors again.
                self.vectors().unassign_all();
                self.control.write(CommonField::Status, 0, queues)
            }
            Field::Shared(CommonField::QueueReset) => self.reset_queue(low(value), queues),
            Field::Shared(field) => self.control.write(field, low(value), queues),
            Field::Address(low_half, high_half) => {
                match self.control.write(low_half, low(value), queues) {
                    WriteOutcome::Done => self.control.write(high_half, high(value), queues),
                    refused => refused,
                }
            }
            // A queue is stopped by its reset, or that of the device: "the driver MUST NOT write a 0 to
            // queue_enable" (§4.1.4.3.2).
            Field::QueueEnable if value == 1 => {
                self.control.write(CommonField::QueueReady, 1, queues)
            }
            Field::QueueEnable => WriteOutcome::Ignored(Ignored::QueueEnable),
            Field::NumQueues | Field::QueueNotifyOff | Field::QueueNotifyData => {
                WriteOutcome::Ignored(Ignored::NoRegister)
            }
            _ if self.control.is_reset_pending() => WriteOutcome::Ignored(Ignored::ResetPending),
            Field::ConfigVector => {
                self.vectors().assign_config(vector(value));
                assigned(vector(value), self.vectors().config_vector())
            }
            Field::QueueVector => {
                let Some(queue) = self.selected() else {
                    return WriteOutcome::Ignored(Ignored::NoQueue);
                };
                self.vectors().assign_queue(queue, vector(value));
                assigned(vector(value), self.vectors().queue_vector(queue))
            }
        }
    }

    /// A queue that is reset is as after a reset of the device: no vector is assigned to it.
    fn reset_queue(&mut self, value: u32, queues: &mut impl Queues<D>) -> WriteOutcome {
        let outcome = self.control.write(CommonField::QueueReset, value, queues);
        if let (1, WriteOutcome::Done | WriteOutcome::Pending(_), Some(queue)) =
            (value, outcome, self.selected())
        {
            self.vectors().assign_queue(queue, NO_VECTOR);
        }
        outcome
    }

    /// The selected queue, if it is there.
    fn selected(&self) -> Option<u16> {
        let selected = u16::try_from(self.control.read(CommonField::QueueSel)).ok()?;
        (selected < self.queue_count()).then_some(selected)
    }
}

/// The value of a field of 16 bits.
fn vector(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(NO_VECTOR)
}

/// A driver reads the field to see whether it has the vector that it wrote (§4.1.5.1.2).
fn assigned(wanted: u16, has: u16) -> WriteOutcome {
    if wanted == has { WriteOutcome::Done } else { WriteOutcome::Ignored(Ignored::NoVector) }
}
