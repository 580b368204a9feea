//! What is on the disks.

pub(crate) const SECTOR: usize = 512;

/// Queues of each disk.
pub(crate) const QUEUES: u16 = 2;

/// Bytes of a disk.
pub(crate) const DISK_LEN: u64 = 1 << 20;

/// The sectors that each queue works on.
pub(crate) const QUEUE_SECTORS: u64 = 256;

/// Sectors of a disk that nothing was written to.
pub(crate) fn original(first: u64, sectors: usize) -> Vec<u8> {
    (first..).take(sectors).flat_map(|sector| [(sector % 251) as u8 + 1; SECTOR]).collect()
}

/// What a queue leaves in its range: zeroes at the end.
pub(crate) fn written(queue: u64) -> Vec<u8> {
    let mut data = vec![0xa0 + queue as u8; QUEUE_SECTORS as usize * SECTOR];
    let zeroed = data.len() - 3 * 8 * SECTOR;
    data[zeroed..].fill(0);
    data
}

/// The whole disk, as the queues left it.
pub(crate) fn served() -> Vec<u8> {
    let queues = u64::from(QUEUES);
    let rest = DISK_LEN / 512 - queues * QUEUE_SECTORS;
    let written = (0..queues).flat_map(written);
    written.chain(original(queues * QUEUE_SECTORS, rest as usize)).collect()
}
