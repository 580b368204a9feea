//! Collecting the buffers of a chain.

use vm_memory::GuestAddress;

use super::chain::Buffer;
use super::descriptor::Descriptor;
use super::fault::RingFault;

/// The sizes of a chain's buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) readable: usize,
    pub(super) readable_len: u32,
    pub(super) writable_len: u32,
}

/// An indirect table in which a chain continues.
pub(super) struct Table {
    pub(super) descriptor: Descriptor,
    /// How many descriptors there may be from here on.
    pub(super) left: u16,
}

/// The buffers of a chain that have been collected.
pub(super) struct Collector<'a> {
    buffers: &'a mut Vec<Buffer>,
    /// Of at most 32768 descriptors of 32-bit lengths each: no overflow.
    len: u64,
    /// How many of the buffers, and of their bytes, came before the first writable one.
    readable: Option<(usize, u64)>,
}

impl<'a> Collector<'a> {
    #[inline]
    pub(super) fn new(buffers: &'a mut Vec<Buffer>) -> Self {
        Self { buffers, len: 0, readable: None }
    }

    /// Adds the buffers of at most `left` descriptors, from the one at `index` on, to the end of the
    /// chain or of this part of it.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        index: u16,
        mut left: u16,
        read: impl Fn(u16) -> Result<Descriptor, RingFault>,
    ) -> Result<Option<Table>, RingFault> {
        let mut next = |descriptor: Descriptor| {
            if !descriptor.has_next() {
                return Ok(None);
            }
            left = left.wrapping_sub(1);
            if left == 0 {
                return Err(RingFault::ChainTooLong);
            }
            read(descriptor.next).map(Some)
        };
        let mut descriptor = read(index)?;
        if self.readable.is_none() {
            while descriptor.is_readable() {
                self.add(&descriptor);
                let Some(following) = next(descriptor)? else { return Ok(None) };
                descriptor = following;
            }
            if descriptor.is_indirect() {
                return Ok(Some(Table { descriptor, left }));
            }
            self.readable = Some((self.buffers.len(), self.len));
        }
        while descriptor.is_writable() {
            self.add(&descriptor);
            let Some(following) = next(descriptor)? else { return Ok(None) };
            descriptor = following;
        }
        if descriptor.is_indirect() {
            return Ok(Some(Table { descriptor, left }));
        }
        Err(RingFault::Order)
    }

    /// An empty buffer, which no rule forbids, holds nothing to add.
    #[inline(always)]
    fn add(&mut self, descriptor: &Descriptor) {
        let len = descriptor.len;
        self.len = self.len.wrapping_add(len.into());
        if len != 0 {
            self.buffers.push(Buffer { addr: GuestAddress(descriptor.addr), len });
        }
    }

    #[inline]
    pub(super) fn totals(&self) -> Result<Totals, RingFault> {
        let Ok(len) = u32::try_from(self.len) else { return Err(RingFault::ChainTooLarge) };
        let (readable, readable_len) = self.readable.unwrap_or((self.buffers.len(), self.len));
        #[expect(clippy::cast_possible_truncation, reason = "not more than all of it")]
        let readable_len = readable_len as u32;
        Ok(Totals { readable, readable_len, writable_len: len.wrapping_sub(readable_len) })
    }
}
