use bitflags::bitflags;

bitflags! {
    /// Feature bits of a block device (virtio 1.2 §5.2.3), and of the rings those that are a device's
    /// to offer (§6).
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
        /// `VIRTIO_BLK_F_TOPOLOGY`: the storage's units are in `topology`.
        const TOPOLOGY = 1 << 10;
        /// `VIRTIO_BLK_F_CONFIG_WCE`: the driver can turn the cache on and off by `writeback`.
        const CONFIG_WCE = 1 << 11;
        /// `VIRTIO_BLK_F_MQ`: the number of queues is in `num_queues`.
        const MQ = 1 << 12;
        /// `VIRTIO_BLK_F_DISCARD`: storage can be given back.
        const DISCARD = 1 << 13;
        /// `VIRTIO_BLK_F_WRITE_ZEROES`: zeroes can be written without data.
        const WRITE_ZEROES = 1 << 14;
        /// `VIRTIO_BLK_F_LIFETIME`: the storage tells of its wear.
        const LIFETIME = 1 << 15;
        /// `VIRTIO_BLK_F_SECURE_ERASE`: data can be erased with all its copies.
        const SECURE_ERASE = 1 << 16;
        /// `VIRTIO_F_INDIRECT_DESC`: descriptors may refer to a table of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// `VIRTIO_F_EVENT_IDX`: `used_event` and `avail_event` steer notifications.
        const EVENT_IDX = 1 << 29;
        /// `VIRTIO_F_IN_ORDER`: buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
    }
}
