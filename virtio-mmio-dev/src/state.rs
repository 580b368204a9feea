//! The state of a transport as one plain value.

use crate::Status;

/// One queue's registers and, for a device that is to be resumed, its ring positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// The size the driver chose; 0 once it wrote one that is none.
    pub size: u16,
    /// `QueueReady` as the driver reads it.
    pub ready: bool,
    /// The driver asked the queue to stop, and it hasn't yet.
    pub stopping: bool,
    /// The stop came from `QueueReset`, which reads 1 until it is done.
    pub resetting: bool,
    /// Address of the descriptor table.
    pub desc_table: u64,
    /// Address of the available ring.
    pub avail_ring: u64,
    /// Address of the used ring.
    pub used_ring: u64,
    /// Next available entry to take. The transport doesn't see a live queue move on: put in the
    /// live queue's [`Positions`](crate::Positions) before you keep the state.
    pub next_avail: u16,
    /// Next used entry to write; as for `next_avail`.
    pub next_used: u16,
}

/// Everything a transport remembers: registers, negotiated features, queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportState {
    /// The device status.
    pub status: Status,
    /// The driver asked for a reset that isn't done yet.
    pub reset_pending: bool,
    /// `InterruptStatus`.
    pub interrupt_status: u8,
    /// `ConfigGeneration`.
    pub config_generation: u32,
    /// `DeviceFeaturesSel`.
    pub device_features_sel: u32,
    /// `DriverFeaturesSel`.
    pub driver_features_sel: u32,
    /// What the driver wrote to `DriverFeatures`, both pages.
    pub driver_features: u64,
    /// `QueueSel`.
    pub queue_sel: u32,
    /// `SHMSel`.
    pub shm_sel: u32,
    /// The queues, by index.
    pub queues: Vec<QueueState>,
}
