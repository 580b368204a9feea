use virtio_dev::{Batch, Chain};
use vm_memory::{GuestAddressSpace, GuestMemory, VolatileMemory};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::kind::RequestKind;

/// The start of `struct virtio_blk_req` (virtio 1.2 §5.2.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) kind: U32,
    pub(crate) reserved: U32,
    pub(crate) sector: U64,
}

impl Header {
    pub(crate) const LEN: usize = size_of::<Self>();

    /// Copies the header of a request, once; `None` if it is not complete.
    #[inline(always)]
    pub(crate) fn read<M: GuestMemory, D: GuestAddressSpace>(
        batch: &mut Batch<'_, M, D>,
        chain: &Chain<D>,
    ) -> Option<Self> {
        if let Some(first) = chain.readable().first().filter(|first| first.len >= Self::LEN as u32)
            && let Some(slice) = batch.plain_slice(chain, first.addr, Self::LEN)
            && let Ok(words) = slice.get_ref::<[u64; 2]>(0)
        {
            return Some(zerocopy::transmute!(words.load()));
        }
        Self::copy(chain)
    }

    /// As [`read`](Self::read), for a header in several buffers or in memory that isn't plain.
    #[inline(never)]
    fn copy<D: GuestAddressSpace>(chain: &Chain<D>) -> Option<Self> {
        let mut header = Self::default();
        let copied = chain.copy_from(0, header.as_mut_bytes());
        matches!(copied, Ok(Self::LEN)).then_some(header)
    }

    pub(crate) fn kind(&self) -> RequestKind {
        match self.kind.get() {
            0 => RequestKind::Read,
            1 => RequestKind::Write,
            4 => RequestKind::Flush,
            8 => RequestKind::GetId,
            10 => RequestKind::GetLifetime,
            11 => RequestKind::Discard,
            13 => RequestKind::WriteZeroes,
            14 => RequestKind::SecureErase,
            _ => RequestKind::Other,
        }
    }
}
