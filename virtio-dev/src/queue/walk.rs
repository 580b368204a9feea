//! Walking one descriptor chain.

use vm_memory::{Bytes, GuestAddress, GuestMemory, VolatileMemory};

use super::area::View;
use super::chain::Buffer;
use super::collector::{Collector, Table, Totals};
use super::descriptor::{DESCRIPTOR, Descriptor, RawDescriptor};
use super::fault::RingFault;
use super::region_cache::RegionCache;
use crate::QueueConfig;

/// One queue's walker: the limits, and the memory it reuses from chain to chain.
#[derive(Debug)]
pub(super) struct Walker {
    size: u16,
    /// The most descriptors of a chain.
    max_len: u16,
    indirect: bool,
    /// A copy of the indirect table at hand.
    table: Vec<u8>,
}

impl Walker {
    pub(super) fn new(config: &QueueConfig) -> Self {
        let QueueConfig { size, size_max, indirect, .. } = *config;
        Self { size, max_len: size.max(size_max), indirect, table: Vec::new() }
    }

    /// Walks the chain that starts at `head`, appending its buffers. Each descriptor is read once;
    /// the ring's through `descriptors`, an indirect table's through `memory`, in one piece.
    ///
    /// At most [`size_max`](QueueConfig::size_max) descriptors are taken, and of an indirect table
    /// only as many are looked at. A loop in the ring ends there, too.
    // Out of line: inlined, it runs out of registers.
    #[inline(never)]
    pub(super) fn walk<R: GuestMemory, M: GuestMemory>(
        &mut self,
        descriptors: &View<'_, R, RawDescriptor>,
        head: u16,
        memory: (&M, &mut RegionCache<'_, M>),
        buffers: &mut Vec<Buffer>,
    ) -> Result<Totals, RingFault> {
        let size = self.size;
        let mut chain = Collector::new(buffers);
        let table = chain.take(head, self.max_len, |index| {
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

    /// Continues in the table that a descriptor refers to: in place, if that is one piece of plain
    /// memory, else in a copy.
    #[inline(never)]
    fn walk_table<M: GuestMemory>(
        &mut self,
        Table { descriptor, left }: Table,
        (memory, regions): (&M, &mut RegionCache<'_, M>),
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
        let bytes = bytes.min(usize::from(self.max_len).saturating_mul(DESCRIPTOR));
        let Some(table) = regions.slice(addr, bytes) else {
            self.table.resize(bytes, 0);
            memory.read_slice(&mut self.table, addr).map_err(|_| RingFault::Table(addr.0))?;
            return self.walk_copy(left, chain);
        };
        let nested = chain.take(0, left, |index| {
            let at = usize::from(index).wrapping_mul(DESCRIPTOR);
            let raw = table.get_ref::<RawDescriptor>(at);
            let raw = raw.map_err(|_| RingFault::DescriptorIndex(index))?;
            Ok(Descriptor::parse(raw.load()))
        })?;
        if nested.is_some() { Err(RingFault::Indirect) } else { chain.totals() }
    }

    #[inline(never)]
    fn walk_copy(&self, left: u16, mut chain: Collector<'_>) -> Result<Totals, RingFault> {
        let (table, _) = self.table.as_chunks::<DESCRIPTOR>();
        let nested = chain.take(0, left, |index| {
            let bytes = table.get(usize::from(index)).ok_or(RingFault::DescriptorIndex(index))?;
            let (raw, _) = bytes.as_chunks();
            Ok(Descriptor::parse([0, 1].map(|half| {
                u64::from_ne_bytes(raw.get::<usize>(half).copied().unwrap_or_default())
            })))
        })?;
        if nested.is_some() { Err(RingFault::Indirect) } else { chain.totals() }
    }
}
