//! Walking one descriptor chain.

use vm_memory::{Bytes, GuestAddress, GuestMemory, VolatileMemory};

use super::area::View;
use super::chain::Buffer;
use super::collector::{Collector, Table, Totals};
use super::descriptor::{DESCRIPTOR, Descriptor, Halves};
use super::fault::RingFault;
use super::windows::Windows;
use crate::QueueConfig;

/// One queue's walker: the limits, and the memory it reuses from chain to chain.
#[derive(Debug)]
pub(super) struct Walker {
    size: u16,
    /// The most descriptors of a chain.
    longest: u16,
    indirect: bool,
    /// A copy of the indirect table at hand.
    table: Vec<u8>,
}

impl Walker {
    pub(super) fn new(config: &QueueConfig) -> Self {
        let QueueConfig { size, size_max, indirect, .. } = *config;
        Self { size, longest: size.max(size_max), indirect, table: Vec::new() }
    }

    /// Walks the chain that starts at `head`, appending its buffers. Each descriptor is read once;
    /// the ring's through `descriptors`, an indirect table's through `memory`, in one piece.
    ///
    /// At most [`size_max`](QueueConfig::size_max) descriptors are taken, and of an indirect table
    /// only as many are looked at. A loop in the ring ends there, too.
    // On its own it has the registers to itself.
    #[inline(never)]
    pub(super) fn walk<R: GuestMemory, M: GuestMemory>(
        &mut self,
        descriptors: &View<'_, R, Halves>,
        head: u16,
        memory: (&M, &mut Windows<'_, M>),
        buffers: &mut Vec<Buffer>,
    ) -> Result<Totals, RingFault> {
        let size = self.size;
        let mut chain = Collector::new(buffers);
        let table = chain.take(head, self.longest, |index| {
            if index >= size {
                return Err(RingFault::DescriptorIndex(index));
            }
            Ok(Descriptor::parse(descriptors.entry(index)?))
        })?;
        match table {
            None => chain.totals(),
            Some(table) => self.walk_table(table, memory, chain),
        }
    }

    /// Goes on in the table that a descriptor refers to: where it lies, if that is one piece of plain
    /// memory, else in a copy.
    #[inline(never)]
    fn walk_table<M: GuestMemory>(
        &mut self,
        Table { descriptor, left }: Table,
        (memory, windows): (&M, &mut Windows<'_, M>),
        mut chain: Collector<'_>,
    ) -> Result<Totals, RingFault> {
        if !self.indirect || descriptor.has_next() {
            return Err(RingFault::Indirect);
        }
        let (addr, len) = (GuestAddress(descriptor.addr), descriptor.len);
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if bytes == 0 || !bytes.is_multiple_of(DESCRIPTOR) {
            return Err(RingFault::TableLength(len));
        }
        let bytes = bytes.min(usize::from(self.longest).saturating_mul(DESCRIPTOR));
        let Some(table) = windows.slice(addr, bytes) else {
            self.table.resize(bytes, 0);
            memory.read_slice(&mut self.table, addr).map_err(|_| RingFault::Table(addr.0))?;
            return self.walk_copy(left, chain);
        };
        let nested = chain.take(0, left, |index| {
            let at = usize::from(index).wrapping_mul(DESCRIPTOR);
            let halves = table.get_ref::<Halves>(at);
            let halves = halves.map_err(|_| RingFault::DescriptorIndex(index))?;
            Ok(Descriptor::parse(halves.load()))
        })?;
        if nested.is_some() { Err(RingFault::Indirect) } else { chain.totals() }
    }

    #[inline(never)]
    fn walk_copy(&self, left: u16, mut chain: Collector<'_>) -> Result<Totals, RingFault> {
        let (table, _) = self.table.as_chunks::<DESCRIPTOR>();
        let nested = chain.take(0, left, |index| {
            let bytes = table.get(usize::from(index)).ok_or(RingFault::DescriptorIndex(index))?;
            let (halves, _) = bytes.as_chunks();
            Ok(Descriptor::parse([0, 1].map(|half| {
                u64::from_ne_bytes(halves.get::<usize>(half).copied().unwrap_or_default())
            })))
        })?;
        if nested.is_some() { Err(RingFault::Indirect) } else { chain.totals() }
    }
}
