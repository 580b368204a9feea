/// The unit of capacities and positions, whatever the logical block size (virtio 1.2 §5.2.4).
pub const SECTOR_SIZE: u64 = 512;
