//! The transport: register accesses in, calls of [`Queues`](crate::Queues) out.

mod builder;
mod config;
mod negotiation;
mod selected_queue;
mod service;
mod start_stop;

use crate::halves::{high, low};
use crate::{
    Ignored, Interrupt, QueueConfig, Queues, Register, SharedMemory, Status, TransportState,
    VirtioDevice, WriteOutcome, feature,
};
pub use builder::MmioTransportBuilder;
use service::Service;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// The size of a device's window, in bytes: the control registers, and 256 bytes of configuration
/// space. The specification says only where the configuration space begins (virtio 1.2 §4.2.2); this
/// much is what toolstacks lay out for a device, Xen's libxl (`VIRTIO_MMIO_DEV_SIZE`) and QEMU's
/// machines alike.
pub const WINDOW_SIZE: u64 = 0x200;
/// Where the configuration space starts in the window.
const CONFIG: u64 = 0x100;

/// The virtio-mmio register window of one device, version 2 (virtio 1.2 §4.2).
///
/// It keeps the registers and the status machine, and nothing else: it reads no guest memory and
/// waits for nothing. Whoever traps the guest's accesses passes them in, with the [`Queues`] that the
/// transport starts and stops as the driver's writes ask for it. See the [crate's example](crate).
pub struct MmioTransport<D> {
    device: D,
    interrupt: Interrupt,
    /// Features that the transport offers, beside the device's.
    offered: u64,
    /// Features, besides `VERSION_1`, that a driver must take.
    required: u64,
    /// All registers but status, interrupt status and generation, which `interrupt` has.
    regs: TransportState,
    /// Which queues are in service.
    service: Vec<Service>,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// The length of the window that shows the whole configuration space.
    pub fn window_len(&self) -> u64 {
        let config = u64::try_from(self.device.config().len()).unwrap_or(u64::MAX);
        CONFIG.saturating_add(config).max(WINDOW_SIZE)
    }

    /// Answers a read of `data.len()` bytes at `offset` in the window. What is not there reads 0.
    ///
    /// Control registers answer aligned 32-bit reads only (virtio 1.2 §4.2.2.2), the
    /// configuration space reads of 1, 2, 4 and 8 bytes, at any offset.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.read_config(offset, data);
        }
        let Some(register) = Register::at(offset) else {
            return;
        };
        if let (Ok(data), true) = (<&mut [u8; 4]>::try_from(data), register.access().reads()) {
            *data = self.read_register(register).to_le_bytes();
        }
    }

    /// Takes a write of `data` at `offset` in the window, and has `queues` do what follows from it:
    /// always the same value, which serves this device's queues. What is not there, or may not be
    /// written now, is ignored, and the outcome says why; widths are as for [`read`](Self::read).
    pub fn write(&mut self, offset: u64, data: &[u8], queues: &mut impl Queues<D>) -> WriteOutcome {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.write_config(offset, data, queues);
        }
        let Some(register) = Register::at(offset).filter(|register| register.access().writes())
        else {
            return WriteOutcome::Ignored(Ignored::NoRegister);
        };
        match <[u8; 4]>::try_from(data) {
            Ok(data) => self.write_register(register, u32::from_le_bytes(data), queues),
            Err(_) => WriteOutcome::Ignored(Ignored::Width),
        }
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

    /// The interrupt of this run of the device, for its live queues: a reset makes it stale.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// The device changed its configuration space: a new generation, and the notification if the
    /// driver is up.
    pub fn config_changed(&mut self) {
        self.interrupt.config_change();
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
    pub fn state(&self) -> TransportState {
        TransportState {
            status: self.interrupt.status(),
            interrupt_status: self.interrupt.pending(),
            config_generation: self.interrupt.generation(),
            device: self.device.save_state(),
            ..self.regs.clone()
        }
    }

    /// Rings may be served: `DRIVER_OK`, not `FAILED`, and no reset under way.
    fn is_live(&self) -> bool {
        self.status().is_live() && !self.regs.reset_pending
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device.device_type(),
            Register::VendorId => self.device.vendor_id(),
            Register::DeviceFeatures => match self.regs.device_features_sel {
                0 => low(self.device_features()),
                1 => high(self.device_features()),
                _ => 0,
            },
            Register::QueueSizeMax => self.selected_max().map_or(0, u32::from),
            Register::QueueReady => self.selected().is_some_and(|queue| queue.ready).into(),
            Register::QueueReset => self.selected().is_some_and(|queue| queue.resetting).into(),
            Register::InterruptStatus => self.interrupt.pending().into(),
            Register::Status => self.status().bits().into(),
            Register::ShmLenLow => low(self.shared_memory().len),
            Register::ShmLenHigh => high(self.shared_memory().len),
            Register::ShmBaseLow => low(self.shared_memory().base),
            Register::ShmBaseHigh => high(self.shared_memory().base),
            Register::ConfigGeneration => self.interrupt.generation(),
            _ => 0,
        }
    }

    /// The two registers that a running guest writes are handled first; the others out of line.
    #[inline]
    fn write_register(
        &mut self,
        register: Register,
        value: u32,
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        match register {
            Register::QueueNotify if !self.regs.reset_pending => self.notify(value),
            Register::InterruptAck if !self.regs.reset_pending => {
                let [bits, ..] = value.to_le_bytes();
                self.interrupt.acknowledge(bits);
                WriteOutcome::Done
            }
            register => self.write_setup(register, value, queues),
        }
    }

    #[inline(never)]
    fn write_setup(
        &mut self,
        register: Register,
        value: u32,
        queues: &mut impl Queues<D>,
    ) -> WriteOutcome {
        if register == Register::Status {
            return self.write_status(value, queues);
        }
        if self.regs.reset_pending {
            return WriteOutcome::Ignored(Ignored::ResetPending);
        }
        match register {
            Register::DeviceFeaturesSel => self.regs.device_features_sel = value,
            Register::DriverFeaturesSel => self.regs.driver_features_sel = value,
            Register::DriverFeatures => return self.write_driver_features(value),
            Register::QueueSel => self.regs.queue_sel = value,
            Register::ShmSel => self.regs.shm_sel = value,
            Register::QueueReady => return self.write_queue_ready(value, queues),
            Register::QueueReset => return self.write_queue_reset(value, queues),
            register => return self.set_queue_up(register, value),
        }
        WriteOutcome::Done
    }

    /// The selected region; one that is not there is all ones.
    fn shared_memory(&self) -> SharedMemory {
        self.device
            .shared_memory(self.regs.shm_sel)
            .unwrap_or(SharedMemory { base: u64::MAX, len: u64::MAX })
    }
}
