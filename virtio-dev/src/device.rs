//! What a device tells its transport.

/// The vendor of a device that names none: `XVT`, for xen-virtio, with the zero byte that ends it
/// for drivers that print the register as a string, as U-Boot does.
pub const VENDOR_ID: u32 = u32::from_le_bytes(*b"XVT\0");

/// A region of memory the device shares with the driver (virtio 1.2 §2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Guest physical address of the region.
    pub base: u64,
    /// Length of the region in bytes.
    pub len: u64,
}

/// What became of a driver's write to the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigWrite {
    /// No field was written that the driver may write now.
    Ignored,
    /// It was taken, and the configuration space reads as before.
    Unchanged,
    /// The configuration space reads otherwise than before.
    Changed,
}

/// The control plane of a virtio device: what it is, what it offers, its configuration space.
///
/// The data plane is no part of it: the transport's caller takes a [`QueueConfig`] for each ready
/// queue and serves it through a [`LiveQueue`], on any thread.
///
/// [`QueueConfig`]: crate::QueueConfig
/// [`LiveQueue`]: crate::LiveQueue
pub trait VirtioDevice {
    /// The device ID (virtio 1.2 §5): 2 is a block device.
    fn device_type(&self) -> u32;

    /// The vendor ID register (virtio 1.2 §4.2.2). It tells an operator whose device the guest
    /// has; no driver depends on it.
    fn vendor_id(&self) -> u32 {
        VENDOR_ID
    }

    /// The largest size of each queue: powers of two, at most 32768. Its length, fixed for the
    /// device's life, is the number of queues.
    fn queue_max_sizes(&self) -> &[u16];

    /// The features that the device offers: those of its type, and of the rings' those that a
    /// [`DEVICE`](crate::feature::DEVICE) offers. The transport adds what is the transport's or the
    /// host's (`VERSION_1`, `ACCESS_PLATFORM` and others). None, if this is left out.
    fn features(&self) -> u64 {
        0
    }

    /// Whether the device works with the driver's choice. The transport has checked that it is a
    /// subset of what is offered and holds what is required.
    fn validate_features(&self, driver: u64) -> bool {
        let _ = driver;
        true
    }

    /// The driver's features, valid and final, at `FEATURES_OK`; those that the transport offers
    /// among them.
    fn accept_features(&mut self, driver: u64) {
        let _ = driver;
    }

    /// The configuration space as it reads now, little-endian. Left out, there is none.
    fn config(&self) -> &[u8] {
        &[]
    }

    /// The driver wrote `data` at `offset`, in bounds of [`config`](Self::config). The device
    /// takes it only for the fields a driver may write and ignores the rest.
    fn write_config(&mut self, offset: usize, data: &[u8]) -> ConfigWrite {
        let _ = (offset, data);
        ConfigWrite::Ignored
    }

    /// What a driver has set in the device and neither the features nor the queues tell, for
    /// [`TransportState`](crate::ControlState): fields of the configuration space that a driver
    /// may write, filters set by a control queue. In whatever form the device likes, of a length
    /// that no driver can raise without bound.
    fn save_state(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes on what [`save_state`](Self::save_state) gave. Comes once, before anything else but
    /// [`accept_features`](Self::accept_features). False if it can't be a state of this device.
    fn restore_state(&mut self, state: &[u8]) -> bool {
        state.is_empty()
    }

    /// The shared memory region `id`, or `None` if there is none.
    fn shared_memory(&self, id: u32) -> Option<SharedMemory> {
        let _ = id;
        None
    }

    /// The driver reset the device; all queues are stopped.
    fn reset(&mut self) {}
}
