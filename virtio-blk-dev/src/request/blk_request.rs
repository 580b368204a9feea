use virtio_dev::{Batch, Buffer, Chain};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemory, Permissions};

use super::header::Header;
use super::kind::{RangeKind, RequestKind};
use super::range::Range;
use super::segment::Segment;
use super::status::Status;
use crate::buffers::{BadAddress, Segments};
use crate::device::Params;
use crate::engine::Command;

/// A request whose header has been read (`struct virtio_blk_req`, virtio 1.2 §5.2.6).
pub(crate) struct BlkRequest<D: GuestAddressSpace> {
    pub(crate) chain: Chain<D>,
    pub(crate) kind: RequestKind,
    pub(crate) sector: u64,
    /// Bytes of the image that it reads or changes, once that is known.
    pub(crate) bytes: u64,
    /// When it was taken out of the ring: a reading of the worker's clock.
    pub(crate) taken_at: u64,
    /// The result of reading its list of ranges, if that was done: the ranges are in its slot then.
    pub(crate) listed: Option<Result<(), Status>>,
}

impl<D: GuestAddressSpace> BlkRequest<D> {
    /// Bytes after the header: the data of a write.
    pub(crate) fn data_out(&self) -> u64 {
        self.chain.readable_len().saturating_sub(Header::LEN as u64)
    }

    /// Bytes before the status: the data of a read.
    pub(crate) fn data_in(&self) -> u64 {
        self.chain.writable_len().saturating_sub(1)
    }

    /// Looks up the host addresses of the data.
    #[inline(always)]
    pub(crate) fn gather<M: GuestMemory>(
        &self,
        batch: &mut Batch<'_, M, D>,
        command: Command,
        segments: &mut Segments,
    ) -> Result<(), BadAddress> {
        // The layout that drivers use: header and status in buffers of their own.
        let (whole, access) = match command {
            Command::Read => match self.chain.writable() {
                [data @ .., status] if status.len == 1 => (data, Permissions::Write),
                _ => return self.gather_window(command, segments),
            },
            Command::Write => match self.chain.readable() {
                [first, data @ ..] if first.len == Header::LEN as u32 => (data, Permissions::Read),
                _ => return self.gather_window(command, segments),
            },
            _ => return Ok(()),
        };
        let memory = &**self.chain.memory();
        for &Buffer { addr, len } in whole {
            match batch.plain_slice(&self.chain, addr, len as usize) {
                Some(slice) => segments.add(&slice),
                None => segments.gather(memory, addr, len as usize, access)?,
            }
        }
        Ok(())
    }

    /// As [`gather`](Self::gather), where header or status share a buffer with data.
    #[cold]
    fn gather_window(&self, command: Command, segments: &mut Segments) -> Result<(), BadAddress> {
        let (buffers, skip, len, access) = match command {
            Command::Read => (self.chain.writable(), 0, self.data_in(), Permissions::Write),
            _ => {
                let buffers = self.chain.readable();
                (buffers, Header::LEN as u64, self.data_out(), Permissions::Read)
            }
        };
        let memory = &**self.chain.memory();
        window(buffers, skip, len)
            .try_for_each(|(addr, len)| segments.gather(memory, addr?, len, access))
    }

    /// Copies the list of ranges out of the data and checks all of it.
    pub(crate) fn ranges<M: GuestMemory>(
        &self,
        batch: &mut Batch<'_, M, D>,
        kind: RangeKind,
        params: &Params,
        ranges: &mut Vec<Range>,
    ) -> Result<(), Status> {
        let count = Segment::count(kind, self.data_out(), params)?;
        let mut offset = Header::LEN as u64;
        let mut status = Ok(());
        for _ in 0..count {
            let segment = Segment::read(batch, &self.chain, offset).ok_or(Status::IoErr)?;
            match segment.range(kind, params) {
                Ok(range) => ranges.push(range),
                // An unknown flag takes precedence over other errors (virtio 1.2 §5.2.6.2).
                Err(Status::Unsupported) => return Err(Status::Unsupported),
                Err(other) => status = Err(other),
            }
            offset = offset.saturating_add(Segment::LEN as u64);
        }
        status
    }
}

/// The guest memory of the bytes `skip` to `skip + len` of `buffers`, taken as one stream, as the framing
/// has no meaning (virtio 1.2 §2.7.4).
fn window(
    buffers: &[Buffer],
    mut skip: u64,
    mut len: u64,
) -> impl Iterator<Item = (Result<GuestAddress, BadAddress>, usize)> {
    buffers.iter().filter_map(move |buffer| {
        let size = u64::from(buffer.len);
        let skipped = skip.min(size);
        skip = skip.saturating_sub(skipped);
        let taken = size.saturating_sub(skipped).min(len);
        len = len.saturating_sub(taken);
        let addr = buffer.addr.0.checked_add(skipped).map(GuestAddress).ok_or(BadAddress);
        let taken = usize::try_from(taken).unwrap_or(usize::MAX);
        (taken > 0).then_some((addr, taken))
    })
}
