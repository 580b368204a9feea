//! The transport: register accesses in, calls of [`Queues`](virtio_dev::Queues) out.

mod builder;

use virtio_dev::{
    ControlPlane, ControlState, Ignored, Interrupt, PendingWrite, QueueConfig, Queues, Status,
    Transport, VirtioDevice, WriteOutcome,
};

use crate::Register;
pub use builder::MmioTransportBuilder;

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
/// It decodes the accesses for a [`ControlPlane`], and nothing else: it reads no guest memory and
/// waits for nothing. Whoever traps the guest's accesses passes them in, with the [`Queues`] that the
/// transport starts and stops as the driver's writes ask for it. See the [crate's example](crate).
pub struct MmioTransport<D> {
    control: ControlPlane<D>,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// The length of the window that shows the whole configuration space.
    pub fn window_len(&self) -> u64 {
        let config = u64::try_from(self.device().config().len()).unwrap_or(u64::MAX);
        CONFIG.saturating_add(config).max(WINDOW_SIZE)
    }

    /// Answers a read of `data.len()` bytes at `offset` in the window. What is not there reads 0.
    ///
    /// Control registers answer aligned 32-bit reads only (virtio 1.2 §4.2.2.2), the
    /// configuration space reads of 1, 2, 4 and 8 bytes, at any offset.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.control.read_config(offset, data);
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
            return self.control.write_config(offset, data, queues);
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

    /// Takes the queues of a [restored](MmioTransportBuilder::restore) transport into service, see
    /// [`ControlPlane::resume`].
    pub fn resume(&mut self, queues: &mut impl Queues<D>) {
        self.control.resume(queues);
    }

    /// A queue that was draining has stopped, see [`ControlPlane::queue_stopped`].
    pub fn queue_stopped(&mut self, queue: u16) {
        self.control.queue_stopped(queue);
    }

    /// Whether queues still drain that this write waits for, see [`ControlPlane::is_pending`].
    pub fn is_pending(&self, write: PendingWrite) -> bool {
        self.control.is_pending(write)
    }

    /// How the driver set up a queue, see [`ControlPlane::queue`].
    pub fn queue(&self, index: u16) -> Option<QueueConfig> {
        self.control.queue(index)
    }

    /// All features offered: the device's, and the transport's own.
    pub fn device_features(&self) -> u64 {
        self.control.device_features()
    }

    /// The negotiated features, see [`ControlPlane::features`].
    pub fn features(&self) -> u64 {
        self.control.features()
    }

    /// The features that the driver wrote, whether they were accepted or not.
    pub fn driver_features(&self) -> u64 {
        self.control.driver_features()
    }

    /// The device status, as the driver reads it.
    pub fn status(&self) -> Status {
        self.control.status()
    }

    /// The interrupt of a queue in this run of the device, for its live queue: a reset makes it stale.
    pub fn interrupt(&self, queue: u16) -> Interrupt {
        self.control.interrupt(queue)
    }

    /// The device changed its configuration space, see [`ControlPlane::config_changed`].
    pub fn config_changed(&self) {
        self.control.config_changed();
    }

    /// The registers behind the window, and more about them.
    pub fn control(&self) -> &ControlPlane<D> {
        &self.control
    }

    /// The device, as its driver has left it.
    pub fn into_device(self) -> D {
        self.control.into_device()
    }

    /// The device.
    pub fn device(&self) -> &D {
        self.control.device()
    }

    /// The device. After a change of its configuration call [`config_changed`](Self::config_changed).
    pub fn device_mut(&mut self) -> &mut D {
        self.control.device_mut()
    }

    /// All registers as one value.
    pub fn state(&self) -> ControlState {
        self.control.state()
    }

    fn read_register(&self, register: Register) -> u32 {
        match register {
            Register::MagicValue => MAGIC,
            Register::Version => VERSION,
            Register::DeviceId => self.device().device_type(),
            Register::VendorId => self.device().vendor_id(),
            Register::InterruptStatus => self.control.interrupt_status().into(),
            register => register.common().map_or(0, |field| self.control.read(field)),
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
            Register::QueueNotify => self.control.notify(value),
            Register::InterruptAck if !self.control.is_reset_pending() => {
                let [bits, ..] = value.to_le_bytes();
                self.control.acknowledge(bits);
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
        match register.common() {
            Some(field) => self.control.write(field, value, queues),
            // An acknowledgement while a reset is under way; no driver writes the others.
            None => WriteOutcome::Ignored(Ignored::ResetPending),
        }
    }
}

/// Answers a read of a window that has no device: device ID 0, by which a driver passes it over
/// (virtio 1.2 §4.2.3.1.1). Writes to it are ignored.
pub fn read_placeholder(offset: u64, data: &mut [u8]) {
    data.fill(0);
    if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
        *data = match Register::at(offset) {
            Some(Register::MagicValue) => MAGIC.to_le_bytes(),
            Some(Register::Version) => VERSION.to_le_bytes(),
            _ => return,
        };
    }
}

impl<D: VirtioDevice> Transport for MmioTransport<D> {
    type Device = D;
    type Address = u64;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8], queues: &mut impl Queues<D>) -> WriteOutcome {
        self.write(offset, data, queues)
    }

    fn resume(&mut self, queues: &mut impl Queues<D>) {
        self.resume(queues);
    }

    fn queue_stopped(&mut self, queue: u16) {
        self.queue_stopped(queue);
    }

    fn control(&self) -> &ControlPlane<D> {
        self.control()
    }

    fn device_mut(&mut self) -> &mut D {
        self.device_mut()
    }
}
