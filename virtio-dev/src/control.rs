//! The control plane of a device: its registers, its status machine and the service of its queues.

mod builder;
mod common_field;
mod config;
mod negotiation;
mod selected_queue;
mod service;
mod start_stop;

use crate::halves::{high, low};
use crate::{
    ControlState, Ignored, Interrupt, QueueConfig, QueueState, Queues, SharedMemory, Status,
    VirtioDevice, WriteOutcome, feature,
};
pub use builder::ControlPlaneBuilder;
pub use common_field::CommonField;
use service::Service;

/// What all transports have behind their registers: the device, its status, the negotiated features,
/// the registers of its queues, and which of them are in service (virtio 1.2 §2, §3).
///
/// It reads no guest memory and waits for nothing. A transport decodes the driver's accesses to
/// [`CommonField`]s and accesses to the configuration space, and passes them in, with the [`Queues`]
/// that are started and stopped as the driver's writes ask for it: always the same value, which serves
/// this device's queues.
pub struct ControlPlane<D> {
    device: D,
    interrupt: Interrupt,
    /// Features that the transport offers, beside the device's.
    offered: u64,
    /// Features, besides `VERSION_1`, that a driver must take.
    required: u64,
    /// All registers but status, interrupt status and generation, which `interrupt` has.
    regs: ControlState,
    /// Which queues are in service.
    service: Vec<Service>,
}

impl<D: VirtioDevice> ControlPlane<D> {
    /// What the driver reads of a field. A field of a queue is the selected queue's; of one that is
    /// not there it is 0.
    pub fn read(&self, field: CommonField) -> u32 {
        let regs = &self.regs;
        let queue = self.selected();
        let address = |part: fn(&QueueState) -> u64| queue.map_or(0, part);
        match field {
            CommonField::DeviceFeaturesSel => regs.device_features_sel,
            CommonField::DeviceFeatures => {
                page(self.device_features(), regs.device_features_sel).unwrap_or(0)
            }
            CommonField::DriverFeaturesSel => regs.driver_features_sel,
            CommonField::DriverFeatures => {
                page(regs.driver_features, regs.driver_features_sel).unwrap_or(0)
            }
            CommonField::Status => self.status().bits().into(),
            CommonField::ConfigGeneration => self.interrupt.generation(),
            CommonField::QueueSel => regs.queue_sel,
            CommonField::QueueSizeMax => self.selected_max().map_or(0, u32::from),
            CommonField::QueueSize => queue.map_or(0, |queue| queue.size.into()),
            CommonField::QueueReady => queue.is_some_and(|queue| queue.ready).into(),
            CommonField::QueueReset => queue.is_some_and(|queue| queue.resetting).into(),
            CommonField::QueueDescLow => low(address(|queue| queue.desc_table)),
            CommonField::QueueDescHigh => high(address(|queue| queue.desc_table)),
            CommonField::QueueDriverLow => low(address(|queue| queue.avail_ring)),
            CommonField::QueueDriverHigh => high(address(|queue| queue.avail_ring)),
            CommonField::QueueDeviceLow => low(address(|queue| queue.used_ring)),
            CommonField::QueueDeviceHigh => high(address(|queue| queue.used_ring)),
            CommonField::ShmSel => regs.shm_sel,
            CommonField::ShmLenLow => low(self.shared_memory().len),
            CommonField::ShmLenHigh => high(self.shared_memory().len),
            CommonField::ShmBaseLow => low(self.shared_memory().base),
            CommonField::ShmBaseHigh => high(self.shared_memory().base),
        }
    }

    /// Takes the driver's write of `value` to a field, and has `queues` do what follows from it. What
    /// may not be written now is ignored, and the outcome says why.
    #[inline(never)]
    pub fn write(
        &mut self,
        field: CommonField,
        value: u32,
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        if field == CommonField::Status {
            return self.write_status(value, queues);
        }
        if self.regs.reset_pending {
            return WriteOutcome::Ignored(Ignored::ResetPending);
        }
        match field {
            CommonField::DeviceFeaturesSel => self.regs.device_features_sel = value,
            CommonField::DriverFeaturesSel => self.regs.driver_features_sel = value,
            CommonField::DriverFeatures => return self.write_driver_features(value),
            CommonField::QueueSel => self.regs.queue_sel = value,
            CommonField::ShmSel => self.regs.shm_sel = value,
            CommonField::DeviceFeatures
            | CommonField::ConfigGeneration
            | CommonField::QueueSizeMax
            | CommonField::ShmLenLow
            | CommonField::ShmLenHigh
            | CommonField::ShmBaseLow
            | CommonField::ShmBaseHigh => return WriteOutcome::Ignored(Ignored::NoRegister),
            CommonField::QueueReady => return self.write_queue_ready(value, queues),
            CommonField::QueueReset => return self.write_queue_reset(value, queues),
            field => return self.set_queue_up(field, value),
        }
        WriteOutcome::Done
    }

    /// How the driver set up queue `index`: `Some` for a ready queue of a device that is live, but
    /// not for one that was broken when its state was saved.
    pub fn queue(&self, index: u16) -> Option<QueueConfig> {
        let features = self.features();
        let queue = self.regs.queues.get(usize::from(index))?;
        let size_max = *self.device.queue_max_sizes().get(usize::from(index))?;
        let served = queue.ready && !queue.stopping && !queue.broken;
        (self.is_live() && served).then_some(QueueConfig {
            index,
            size: queue.size,
            size_max,
            desc_table: queue.desc_table,
            avail_ring: queue.avail_ring,
            used_ring: queue.used_ring,
            event_idx: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT_DESC != 0,
            next_avail: queue.next_avail,
            next_used: queue.next_used,
        })
    }

    /// All features offered: the device's, and the transport's own.
    pub fn device_features(&self) -> u64 {
        self.device.features() | self.offered
    }

    /// The negotiated features; 0 before `FEATURES_OK`, or before `DRIVER_OK` of a driver that
    /// doesn't set `FEATURES_OK`.
    pub fn features(&self) -> u64 {
        if self.status().is_negotiated() { self.regs.driver_features } else { 0 }
    }

    /// The features that the driver wrote, whether they were accepted or not.
    pub fn driver_features(&self) -> u64 {
        self.regs.driver_features
    }

    /// The device status, as the driver reads it.
    pub fn status(&self) -> Status {
        self.interrupt.status()
    }

    /// The interrupt of a queue in this run of the device, for its live queue: a reset makes it stale.
    pub fn interrupt(&self, queue: u16) -> Interrupt {
        self.interrupt.of_queue(queue)
    }

    /// The interrupt status: bit 0 for used buffers, bit 1 for a configuration change.
    pub fn interrupt_status(&self) -> u8 {
        self.interrupt.pending()
    }

    /// The driver acknowledged these bits of the interrupt status: only these are cleared.
    pub fn acknowledge(&self, bits: u8) {
        self.interrupt.acknowledge(bits);
    }

    /// The interrupt status, which this clears: virtio-pci's ISR status (virtio 1.2 §4.1.4.5).
    pub fn take_interrupt_status(&self) -> u8 {
        self.interrupt.take_pending()
    }

    /// The device changed its configuration space: a new generation, and the notification if the
    /// driver is up.
    pub fn config_changed(&self) {
        self.interrupt.config_change();
    }

    /// The device, as its driver has left it.
    pub fn into_device(self) -> D {
        self.device
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device. After a change of its configuration call [`config_changed`](Self::config_changed).
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// All registers as one value.
    pub fn state(&self) -> ControlState {
        ControlState {
            status: self.interrupt.status(),
            interrupt_status: self.interrupt.pending(),
            config_generation: self.interrupt.generation(),
            device: self.device.save_state(),
            ..self.regs.clone()
        }
    }

    /// Whether the driver asked for a reset that isn't done yet.
    pub fn is_reset_pending(&self) -> bool {
        self.regs.reset_pending
    }

    /// The selected region; one that is not there is all ones.
    fn shared_memory(&self) -> SharedMemory {
        self.device
            .shared_memory(self.regs.shm_sel)
            .unwrap_or(SharedMemory { base: u64::MAX, len: u64::MAX })
    }

    /// Rings may be served: `DRIVER_OK`, not `FAILED`, and no reset under way.
    fn is_live(&self) -> bool {
        self.status().is_live() && !self.regs.reset_pending
    }
}

/// 32 bits of the features; there are two such pages.
fn page(features: u64, selected: u32) -> Option<u32> {
    match selected {
        0 => Some(low(features)),
        1 => Some(high(features)),
        _ => None,
    }
}
