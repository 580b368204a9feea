//! The chains of a ring that holds still, read as the specification says (virtio 1.2 §2.7).

use std::ops::Range;

use virtio_dev::QueueConfig;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Guest memory, as far as it goes.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(pub(super) &'a [u8]);

impl<'a> View<'a> {
    pub(super) fn slice(self, addr: u64, len: u64) -> Option<&'a [u8]> {
        let range = Self::range(addr, len)?;
        self.0.get(range)
    }

    /// The place of `len` bytes at `addr`, wherever that is.
    pub(super) fn range(addr: u64, len: u64) -> Option<Range<usize>> {
        let end = addr.checked_add(len)?;
        Some(usize::try_from(addr).ok()?..usize::try_from(end).ok()?)
    }

    fn le<const N: usize>(self, addr: u64) -> Option<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.slice(addr, N as u64)?);
        Some(u64::from_le_bytes(wide))
    }
}

/// One piece of a request's data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buf {
    pub(super) addr: u64,
    pub(super) len: u64,
}

/// One request.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) head: u16,
    pub(super) readable: Vec<Buf>,
    pub(super) writable: Vec<Buf>,
    pub(super) table: Option<Buf>,
}

/// What there is in the ring, up to what no driver may put there.
#[derive(Debug, Default)]
pub(super) struct Ring {
    pub(super) chains: Vec<Chain>,
    pub(super) broken: bool,
    /// A chain is there twice: whether that counts depends on when the first is answered.
    pub(super) repeated: bool,
}

/// The driver broke the rules.
struct Broken;

pub(super) fn walk(memory: View<'_>, queue: &QueueConfig) -> Ring {
    let mut ring = Ring::default();
    let size = queue.size;
    let index = memory.le::<2>(queue.avail_ring + 2).unwrap_or_default() as u16;
    let count = index.wrapping_sub(queue.next_avail);
    if count > size {
        ring.broken = true;
        return ring;
    }
    for nth in 0..count {
        let slot = u64::from(queue.next_avail.wrapping_add(nth) % size);
        let head = memory.le::<2>(queue.avail_ring + 4 + 2 * slot).unwrap_or_default() as u16;
        if ring.chains.iter().any(|chain| chain.head == head) {
            ring.repeated = true;
            return ring;
        }
        match chain(memory, queue, head) {
            Ok(chain) => ring.chains.push(chain),
            Err(Broken) => {
                ring.broken = true;
                return ring;
            }
        }
    }
    ring
}

fn chain(memory: View<'_>, queue: &QueueConfig, head: u16) -> Result<Chain, Broken> {
    let size = u64::from(queue.size);
    let mut chain = Chain { head, ..Chain::default() };
    let mut writing = false;
    // Where descriptors are read from: the ring's table, then maybe an indirect one.
    let (mut table, mut entries) = (queue.desc_table, size);
    let mut index = u64::from(head);
    for _ in 0..=size {
        if index >= entries {
            return Err(Broken);
        }
        let at = table + 16 * index;
        let field = |value: Option<u64>| value.ok_or(Broken);
        let addr = field(memory.le::<8>(at))?;
        let len = field(memory.le::<4>(at + 8))?;
        let flags = field(memory.le::<2>(at + 12))? as u16;
        let next = field(memory.le::<2>(at + 14))?;
        if flags & INDIRECT != 0 {
            let nested = chain.table.is_some();
            if !queue.indirect || flags & NEXT != 0 || nested || len == 0 || len % 16 != 0 {
                return Err(Broken);
            }
            // No chain is longer than the ring, so no more of a table is looked at.
            let seen = len.min(16 * size);
            memory.slice(addr, seen).ok_or(Broken)?;
            chain.table = Some(Buf { addr, len: seen });
            (table, entries, index) = (addr, seen / 16, 0);
            continue;
        }
        let buffers = chain.readable.len() + chain.writable.len();
        if buffers as u64 == size {
            return Err(Broken);
        }
        if flags & WRITE != 0 {
            writing = true;
        } else if writing {
            return Err(Broken);
        }
        let list = if writing { &mut chain.writable } else { &mut chain.readable };
        list.push(Buf { addr, len });
        let total: u64 = chain.readable.iter().chain(&chain.writable).map(|buf| buf.len).sum();
        if total > u64::from(u32::MAX) {
            return Err(Broken);
        }
        if flags & NEXT == 0 {
            return Ok(chain);
        }
        index = next;
    }
    Err(Broken)
}
