use bitflags::bitflags;

bitflags! {
    /// Feature bits of a block device (virtio 1.2 §5.2.3) and the transport-independent ones it
    /// offers (§6).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// `VIRTIO_BLK_F_SIZE_MAX`: a buffer's greatest size is in `size_max`.
        const SIZE_MAX = 1 << 1;
        /// `VIRTIO_BLK_F_SEG_MAX`: a request's greatest number of data buffers is in `seg_max`.
        const SEG_MAX = 1 << 2;
        /// `VIRTIO_BLK_F_RO`: the device refuses writes.
        const RO = 1 << 5;
        /// `VIRTIO_BLK_F_BLK_SIZE`: the logical block size is in `blk_size`.
        const BLK_SIZE = 1 << 6;
        /// `VIRTIO_BLK_F_FLUSH`: the device has a volatile cache and a command to flush it.
        const FLUSH = 1 << 9;
        /// `VIRTIO_F_INDIRECT_DESC`: descriptors may refer to a table of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `VIRTIO_F_EVENT_IDX`: `used_event` and `avail_event` steer notifications.
        const EVENT_IDX = 1 << 29;
        /// `VIRTIO_F_VERSION_1`: not a legacy device.
        const VERSION_1 = 1 << 32;
        /// `VIRTIO_F_ACCESS_PLATFORM`: addresses go through the platform's translation, which on
        /// Xen means that they name grants.
        const ACCESS_PLATFORM = 1 << 33;
    }
}
