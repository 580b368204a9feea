//! The state of a control plane as one plain value.

use crate::halves::{high, join, low};
use crate::interrupt::{CONFIG_CHANGE, USED_BUFFER};
use crate::{CommonField, Error, Ignored, Status};

/// The largest queue a split ring can have (virtio 1.2 §2.7).
const QUEUE_SIZE_MAX: u16 = 32768;

/// One queue's registers and, for a device that is to be resumed, its ring positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// The size the driver chose; 0 after it wrote an invalid one.
    pub size: u16,
    /// It is ready, as the driver reads it: `QueueReady`, `queue_enable`.
    pub ready: bool,
    /// The driver asked the queue to stop, and it hasn't yet.
    pub stopping: bool,
    /// The stop came from `QueueReset` or `queue_reset`, which reads 1 until it is done.
    pub resetting: bool,
    /// Address of the descriptor table.
    pub desc_table: u64,
    /// Address of the available ring.
    pub avail_ring: u64,
    /// Address of the used ring.
    pub used_ring: u64,
    /// Next available entry to take. The control plane doesn't see a live queue move on: put in the
    /// live queue's [`Positions`](crate::Positions) before you keep the state.
    pub next_avail: u16,
    /// Next used entry to write; as for `next_avail`.
    pub next_used: u16,
    /// The driver broke the ring; as for `next_avail`. The queue is not served until the driver
    /// stops it or resets the device.
    pub broken: bool,
}

/// The state of a device that is the same over every transport: registers, negotiated features,
/// queues, and the state of the device itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlState {
    /// The device status.
    pub status: Status,
    /// The driver asked for a reset that isn't done yet.
    pub reset_pending: bool,
    /// The interrupt status: virtio-mmio's `InterruptStatus`, virtio-pci's ISR status.
    pub interrupt_status: u8,
    /// The generation of the configuration space.
    pub config_generation: u32,
    /// The selected page of the device's features.
    pub device_features_sel: u32,
    /// The selected page of the driver's features.
    pub driver_features_sel: u32,
    /// The features that the driver wrote, both pages.
    pub driver_features: u64,
    /// The selected queue.
    pub queue_sel: u32,
    /// The selected shared memory region, over virtio-mmio.
    pub shm_sel: u32,
    /// The queues, by index.
    pub queues: Vec<QueueState>,
    /// What [`VirtioDevice::save_state`](crate::VirtioDevice::save_state) gave.
    pub device: Vec<u8>,
}

impl QueueState {
    fn after_reset(max: u16) -> Self {
        Self { size: max, ..Self::default() }
    }

    /// Size and addresses: the driver's to write while the queue is not ready.
    pub(crate) fn set_up(&mut self, field: CommonField, value: u32, max: u16) -> Option<Ignored> {
        if self.ready {
            return Some(Ignored::QueueIsReady);
        }
        match field {
            // An invalid size keeps the queue from becoming ready.
            CommonField::QueueSize => {
                self.size = u16::try_from(value)
                    .ok()
                    .filter(|&size| is_queue_size(size) && size <= max)
                    .unwrap_or(0);
                return (self.size == 0).then_some(Ignored::QueueSize);
            }
            CommonField::QueueDescLow => set_low(&mut self.desc_table, value),
            CommonField::QueueDescHigh => set_high(&mut self.desc_table, value),
            CommonField::QueueDriverLow => set_low(&mut self.avail_ring, value),
            CommonField::QueueDriverHigh => set_high(&mut self.avail_ring, value),
            CommonField::QueueDeviceLow => set_low(&mut self.used_ring, value),
            CommonField::QueueDeviceHigh => set_high(&mut self.used_ring, value),
            // Not a register of a queue that a driver sets up.
            _ => return Some(Ignored::NoRegister),
        }
        None
    }

    /// Stopped: back to what a reset leaves if that was asked for, else only not ready. The
    /// driver starts over at ring index 0 either way.
    pub(crate) fn stop(&mut self, max: u16) {
        if self.resetting {
            *self = Self::after_reset(max);
        } else {
            self.ready = false;
            self.stopping = false;
            self.next_avail = 0;
            self.next_used = 0;
            self.broken = false;
        }
    }
}

impl ControlState {
    pub(crate) fn after_reset(max_sizes: &[u16]) -> Self {
        Self {
            queues: max_sizes.iter().map(|&max| QueueState::after_reset(max)).collect(),
            ..Self::default()
        }
    }

    /// Whether a device with these queues can have been in this state.
    pub(crate) fn check(&self, max_sizes: &[u16]) -> Result<(), Error> {
        if self.queues.len() != max_sizes.len() {
            return Err(Error::State("another number of queues"));
        }
        for (queue, &max) in self.queues.iter().zip(max_sizes) {
            if queue.size != 0 && !(is_queue_size(queue.size) && queue.size <= max) {
                return Err(Error::State("a queue's size is impossible"));
            }
            if queue.ready && queue.size == 0 {
                return Err(Error::State("a ready queue without a size"));
            }
        }
        if self.interrupt_status & !(USED_BUFFER | CONFIG_CHANGE) != 0 {
            return Err(Error::State("unknown interrupt status bits"));
        }
        if self.status.is_negotiated() && !self.status.contains(Status::DRIVER) {
            return Err(Error::State("negotiated features without a driver"));
        }
        Ok(())
    }
}

pub(crate) fn is_queue_size(size: u16) -> bool {
    size.is_power_of_two() && size <= QUEUE_SIZE_MAX
}

fn set_low(address: &mut u64, value: u32) {
    *address = join(high(*address), value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = join(value, low(*address));
}
