//! The fields of the common configuration structure (virtio 1.2 §4.1.4.3).

use virtio_dev::CommonField;

/// A field as a driver accesses it: at its offset, in its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// One that other transports have, too.
    Shared(CommonField),
    /// An address of the selected queue in one access: its low and its high half.
    Address(CommonField, CommonField),
    ConfigVector,
    NumQueues,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    /// Not there without `VIRTIO_F_NOTIF_CONFIG_DATA`: reads 0.
    QueueNotifyData,
}

impl Field {
    /// The field at `offset` that is `width` bytes wide. Fields of 64 bits are also two of 32 each
    /// (§4.1.3.1); that drivers access them at once is allowed, as some do where they can.
    pub(crate) fn at(offset: u32, width: usize) -> Option<Self> {
        use CommonField as Common;
        let shared = |field| Some(Self::Shared(field));
        match (offset, width) {
            (0x00, 4) => shared(Common::DeviceFeaturesSel),
            (0x04, 4) => shared(Common::DeviceFeatures),
            (0x08, 4) => shared(Common::DriverFeaturesSel),
            (0x0c, 4) => shared(Common::DriverFeatures),
            (0x10, 2) => Some(Self::ConfigVector),
            (0x12, 2) => Some(Self::NumQueues),
            (0x14, 1) => shared(Common::Status),
            (0x15, 1) => shared(Common::ConfigGeneration),
            (0x16, 2) => shared(Common::QueueSel),
            (0x18, 2) => shared(Common::QueueSize),
            (0x1a, 2) => Some(Self::QueueVector),
            (0x1c, 2) => Some(Self::QueueEnable),
            (0x1e, 2) => Some(Self::QueueNotifyOff),
            (0x20, 4) => shared(Common::QueueDescLow),
            (0x24, 4) => shared(Common::QueueDescHigh),
            (0x28, 4) => shared(Common::QueueDriverLow),
            (0x2c, 4) => shared(Common::QueueDriverHigh),
            (0x30, 4) => shared(Common::QueueDeviceLow),
            (0x34, 4) => shared(Common::QueueDeviceHigh),
            (0x20, 8) => Some(Self::Address(Common::QueueDescLow, Common::QueueDescHigh)),
            (0x28, 8) => Some(Self::Address(Common::QueueDriverLow, Common::QueueDriverHigh)),
            (0x30, 8) => Some(Self::Address(Common::QueueDeviceLow, Common::QueueDeviceHigh)),
            (0x38, 2) => Some(Self::QueueNotifyData),
            (0x3a, 2) => shared(Common::QueueReset),
            _ => None,
        }
    }
}
