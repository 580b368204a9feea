//! Walking one descriptor chain.

use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::area::{Lost, View};
use super::chain::Buffer;
use super::windows::Windows;

/// What a driver did to its ring that no driver may do. The queue is broken from there on, and the
/// device asks for a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingFault {
    /// The available index moved by more than the queue's size.
    #[error("the available index jumped by {0}, more than the queue's size")]
    AvailIndex(u16),
    /// An available entry or a `next` field names no descriptor.
    #[error("{0} is no index into the descriptor table")]
    DescriptorIndex(u16),
    /// A descriptor is the head of two chains in flight.
    #[error("descriptor {0} was made available while it is in flight")]
    HeadInFlight(u16),
    /// A chain of more descriptors than the queue's size: maybe a loop.
    #[error("a chain is longer than the queue's size")]
    ChainTooLong,
    /// The buffers of a chain add up to 2³² bytes or more.
    #[error("a chain's buffers add up to 4 GiB or more")]
    ChainTooLarge,
    /// A device-readable buffer after a device-writable one.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// An indirect descriptor that wasn't negotiated, or in an indirect table, or with `NEXT`.
    #[error("an indirect descriptor where none may be")]
    Indirect,
    /// An indirect table whose length is 0 or not a multiple of 16.
    #[error("an indirect table of {0} bytes")]
    TableLength(u32),
    /// An indirect table that can't be read.
    #[error("the indirect table at {0:#x} can't be read")]
    Table(u64),
    /// A part of the ring that could be accessed once no longer can be.
    #[error("the ring itself can't be accessed any more")]
    Ring,
    /// The device completed a chain that isn't of this queue: the device's mistake.
    #[error("descriptor {0} was completed but is not in flight")]
    NotInFlight(u16),
}

impl From<Lost> for RingFault {
    fn from(_: Lost) -> Self {
        Self::Ring
    }
}

/// The size of a descriptor in bytes.
pub(super) const DESCRIPTOR: usize = 16;

/// `VIRTQ_DESC_F_NEXT`, `VIRTQ_DESC_F_WRITE` and `VIRTQ_DESC_F_INDIRECT` (virtio 1.2 §2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// `{ addr: le64, len: le32, flags: le16, next: le16 }` (virtio 1.2 §2.7.5).
#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// From its two halves, as they lie in memory.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "each field is cut out")]
    fn parse([low, high]: [u64; 2]) -> Self {
        let high = u64::from_le(high);
        Self {
            addr: u64::from_le(low),
            len: high as u32,
            flags: (high >> 32) as u16,
            next: (high >> 48) as u16,
        }
    }

    #[inline]
    fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What a chain comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) readable: usize,
    pub(super) readable_len: u32,
    pub(super) writable_len: u32,
}

/// One queue's walker: the limits, and the memory it reuses from chain to chain.
#[derive(Debug)]
pub(super) struct Walker {
    size: u16,
    indirect: bool,
    /// A copy of the indirect table at hand.
    table: Vec<u8>,
}

impl Walker {
    pub(super) fn new(size: u16, indirect: bool) -> Self {
        Self { size, indirect, table: Vec::new() }
    }

    /// Walks the chain that starts at `head`, appending its buffers. Each descriptor is read once;
    /// the ring's through `descriptors`, an indirect table's through `memory`, in one piece.
    ///
    /// At most `size` descriptors are taken, which is what a driver may chain (virtio 1.2
    /// §2.7.5.3.1), and of an indirect table only the first `size` are looked at.
    // On its own it has the registers to itself.
    #[inline(never)]
    pub(super) fn walk<R: GuestMemory, M: GuestMemory>(
        &mut self,
        descriptors: &View<'_, R>,
        head: u16,
        (memory, windows): (&M, &mut Windows<'_, M>),
        buffers: &mut Vec<Buffer>,
    ) -> Result<Totals, RingFault> {
        let mut chain = Collector::new(buffers);
        let mut index = head;
        for taken in 0..self.size {
            if index >= self.size {
                return Err(RingFault::DescriptorIndex(index));
            }
            let offset = usize::from(index).wrapping_mul(DESCRIPTOR);
            let descriptor = Descriptor::parse(descriptors.copy(offset)?);
            if descriptor.is(INDIRECT) {
                if !self.indirect || descriptor.is(NEXT) {
                    return Err(RingFault::Indirect);
                }
                self.fetch(memory, windows, &descriptor)?;
                let left = self.size.wrapping_sub(taken);
                self.walk_table(left, &mut chain)?;
                return chain.totals();
            }
            if !chain.take(&descriptor) {
                return Err(RingFault::Order);
            }
            if !descriptor.is(NEXT) {
                return chain.totals();
            }
            index = descriptor.next;
        }
        Err(RingFault::ChainTooLong)
    }

    /// Copies the table that `descriptor` refers to. Its WRITE flag means nothing (§2.7.5.3.2).
    fn fetch<M: GuestMemory>(
        &mut self,
        memory: &M,
        windows: &mut Windows<'_, M>,
        descriptor: &Descriptor,
    ) -> Result<(), RingFault> {
        let (addr, len) = (GuestAddress(descriptor.addr), descriptor.len);
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if bytes == 0 || !bytes.is_multiple_of(DESCRIPTOR) {
            return Err(RingFault::TableLength(len));
        }
        let most = usize::from(self.size).saturating_mul(DESCRIPTOR);
        self.table.resize(bytes.min(most), 0);
        if let Some(slice) = windows.slice(addr, self.table.len()) {
            slice.copy_to(self.table.as_mut_slice());
            return Ok(());
        }
        memory.read_slice(&mut self.table, addr).map_err(|_| RingFault::Table(addr.0))
    }

    fn walk_table(&self, most: u16, chain: &mut Collector<'_>) -> Result<(), RingFault> {
        let (table, _) = self.table.as_chunks::<DESCRIPTOR>();
        let mut index = 0;
        for _ in 0..most {
            let bytes = table.get(usize::from(index)).ok_or(RingFault::DescriptorIndex(index))?;
            let (halves, _) = bytes.as_chunks();
            let [low, high] = [0, 1].map(|half| {
                u64::from_ne_bytes(halves.get::<usize>(half).copied().unwrap_or_default())
            });
            let descriptor = Descriptor::parse([low, high]);
            if descriptor.is(INDIRECT) {
                return Err(RingFault::Indirect);
            }
            if !chain.take(&descriptor) {
                return Err(RingFault::Order);
            }
            if !descriptor.is(NEXT) {
                return Ok(());
            }
            index = descriptor.next;
        }
        Err(RingFault::ChainTooLong)
    }
}

struct Collector<'a> {
    buffers: &'a mut Vec<Buffer>,
    /// How many of the buffers are readable, once there is a writable one.
    readable: Option<usize>,
    /// Of at most 32768 descriptors of 32-bit lengths each: no overflow.
    readable_len: u64,
    writable_len: u64,
}

impl<'a> Collector<'a> {
    #[inline]
    fn new(buffers: &'a mut Vec<Buffer>) -> Self {
        Self { buffers, readable: None, readable_len: 0, writable_len: 0 }
    }

    /// Adds one descriptor's buffer; `false` if it is readable after a writable one. An empty one,
    /// which no rule forbids, holds nothing to add.
    #[inline]
    fn take(&mut self, descriptor: &Descriptor) -> bool {
        let len = u64::from(descriptor.len);
        if descriptor.is(WRITE) {
            self.readable.get_or_insert(self.buffers.len());
            self.writable_len = self.writable_len.wrapping_add(len);
        } else if self.readable.is_some() {
            return false;
        } else {
            self.readable_len = self.readable_len.wrapping_add(len);
        }
        if len != 0 {
            self.buffers.push(Buffer { addr: GuestAddress(descriptor.addr), len: descriptor.len });
        }
        true
    }

    #[inline]
    fn totals(&self) -> Result<Totals, RingFault> {
        if self.readable_len.wrapping_add(self.writable_len) > u64::from(u32::MAX) {
            return Err(RingFault::ChainTooLarge);
        }
        #[expect(clippy::cast_possible_truncation, reason = "their sum fits")]
        let [readable_len, writable_len] =
            [self.readable_len, self.writable_len].map(|len| len as u32);
        let readable = self.readable.unwrap_or(self.buffers.len());
        Ok(Totals { readable, readable_len, writable_len })
    }
}
