use crate::config::Serial;

/// What a [`Worker`](crate::Worker) needs to know of its device: the limits that requests are
/// checked against. [`BlockDevice::params`](crate::BlockDevice::params) makes it from the
/// negotiated features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The disk's size in bytes. Nothing is read or written beyond.
    pub capacity: u64,
    /// Refuse every write.
    pub read_only: bool,
    /// Complete a write only when it is on stable storage: the driver didn't take
    /// `VIRTIO_BLK_F_FLUSH`, so it can't ask for that itself (virtio 1.2 §5.2.6.2).
    pub write_through: bool,
    /// What `VIRTIO_BLK_T_GET_ID` answers.
    pub serial: Serial,
}
