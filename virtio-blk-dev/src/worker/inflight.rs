use std::sync::atomic::{AtomicU64, Ordering};

use virtio_mmio_dev::{Batch, Buffer, Chain};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemory, Permissions};

use super::canceller::Canceller;
use crate::buffers::{BadAddress, Segments};
use crate::device::Params;
use crate::engine::{Command, Io, Spare};
use crate::request::{Header, RequestKind, Status};
use crate::request::{Range, RangeKind, Segment};

/// A request whose header has been read.
pub(crate) struct Request<D: GuestAddressSpace> {
    pub(crate) chain: Chain<D>,
    pub(crate) kind: RequestKind,
    pub(crate) sector: u64,
    /// Bytes of the image that it is about, once that is known.
    pub(crate) bytes: u64,
    /// When it was taken out of the ring, in nanoseconds of the worker's clock.
    pub(crate) taken_at: u64,
    /// What its list of ranges came to, if that was read: they are in its slot then.
    pub(crate) listed: Option<Result<(), Status>>,
}

impl<D: GuestAddressSpace> Request<D> {
    /// Bytes after the header: what a write stores.
    pub(crate) fn data_out(&self) -> u64 {
        self.chain.readable_len().saturating_sub(Header::LEN as u64)
    }

    /// Bytes before the status: what a read fills.
    pub(crate) fn data_in(&self) -> u64 {
        self.chain.writable_len().saturating_sub(1)
    }

    /// Looks up the host addresses of the data.
    #[inline(always)]
    fn gather<M: GuestMemory>(
        &self,
        batch: &mut Batch<'_, M, D>,
        command: Command,
        segments: &mut Segments,
    ) -> Result<(), BadAddress> {
        // As drivers do it: header and status in buffers of their own.
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

    /// As [`gather`](Self::gather), wherever header and status lie.
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
    fn ranges<M: GuestMemory>(
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
                // Whatever else is wrong, an unknown flag is told of (virtio 1.2 §5.2.6.2).
                Err(Status::Unsupported) => return Err(Status::Unsupported),
                Err(other) => status = Err(other),
            }
            offset = offset.saturating_add(Segment::LEN as u64);
        }
        status
    }
}

/// The pieces of guest memory that are bytes `skip` to `skip + len` of the stream `buffers`:
/// where a buffer ends means nothing (virtio 1.2 §2.7.4).
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

/// The requests that an engine has in hand.
///
/// A request rests here from before its guest memory is looked up until its [`Io`] comes back:
/// that is what keeps the memory mapped under the engine.
pub(crate) struct InFlight<D: GuestAddressSpace> {
    /// By the head of the chain, which no other chain in flight has.
    slots: Vec<Slot<D>>,
    /// The last used first: it is in the processor's cache.
    spares: Vec<Spare>,
    /// Tells this table's tags from those of any other.
    id: u64,
    /// Bytes of a range that one operation is about at most.
    pub(crate) piece: u64,
    pub(crate) canceller: Canceller,
}

struct Slot<D: GuestAddressSpace> {
    request: Option<Request<D>>,
    /// Of a request with a list of them: those that are left, in reverse.
    ranges: Vec<Range>,
    /// A flush comes after the last of them.
    durable: bool,
}

impl<D: GuestAddressSpace> Slot<D> {
    #[inline]
    fn has_more(&self) -> bool {
        self.durable || !self.ranges.is_empty()
    }

    /// What comes next: a piece of a range, or the flush at their end.
    fn next(&mut self, piece: u64) -> Option<Range> {
        Range::next_piece(&mut self.ranges, piece).or_else(|| {
            let flush = Range { command: Command::Flush, offset: 0, len: 0 };
            std::mem::take(&mut self.durable).then_some(flush)
        })
    }

    #[inline]
    fn forget(&mut self) {
        self.ranges.clear();
        self.durable = false;
    }
}

/// 1 GiB: hosts have frozen over much larger discards, and between two pieces a worker can be told to
/// end.
const PIECE: u64 = 1 << 30;
const SLOT_BITS: u32 = 16;
/// No head has this index: a queue is at most 32768 long.
const NO_SLOT: u64 = 0xffff;

/// A request that no operation carries out, and its status.
pub(crate) struct Refused<D: GuestAddressSpace>(pub(crate) Request<D>, pub(crate) Status);

/// What an operation that has come back was for.
pub(crate) enum Finished<D: GuestAddressSpace> {
    /// The whole request.
    Request(Request<D>),
    /// A request that is given up although nothing failed.
    Cancelled(Request<D>),
    /// A part of a request, of which this comes next.
    Next(Io),
    /// No request: a flush of the worker's own, or nothing of this table.
    None,
}

impl<D: GuestAddressSpace> InFlight<D> {
    pub(crate) fn new(queue_size: u16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            slots: (0..queue_size)
                .map(|_| Slot { request: None, ranges: Vec::new(), durable: false })
                .collect(),
            spares: Vec::with_capacity(usize::from(queue_size)),
            id: NEXT.fetch_add(1, Ordering::Relaxed) << SLOT_BITS,
            piece: PIECE,
            canceller: Canceller::default(),
        }
    }

    /// Makes the operation that carries out `request`.
    ///
    /// # Errors
    /// The request, if its data isn't all in guest memory.
    #[inline(always)]
    pub(crate) fn start<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: Request<D>,
        command: Command,
        durable: bool,
        range: (u64, u64),
    ) -> Result<Io, Option<Refused<D>>> {
        let head = request.chain.head();
        let refused = |request| Refused(request, Status::IoErr);
        let slot = match self.slots.get_mut(usize::from(head)) {
            Some(slot) if slot.request.is_none() => slot,
            _ => return Err(Some(refused(request))),
        };
        let mut spare = self.spares.pop().unwrap_or_else(Spare::new);
        let gathered = slot.request.insert(request).gather(batch, command, spare.segments());
        if gathered.is_err() {
            spare.segments().clear();
            self.spares.push(spare);
            return Err(slot.request.take().map(refused));
        }
        // SAFETY: the memory was looked up through the guard in the chain, or in plain memory that
        // this guard is one on, which `Batch::plain_slice` checks. The chain now rests in a slot of
        // its own, neither moved nor touched until `finish` or `finish_last` has the `Io` back. A slot
        // whose `Io` never comes back is leaked by `drop`.
        Ok(unsafe { spare.begin(self.id | u64::from(head), command, durable, range) })
    }

    /// Reads the list of ranges that is the data of `request` into its slot, once.
    ///
    /// # Errors
    /// The status, if one of the ranges can't be: then there is none in the slot.
    pub(crate) fn list<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: &mut Request<D>,
        kind: RangeKind,
        params: &Params,
    ) -> Result<(), Status> {
        if let Some(listed) = request.listed {
            return listed;
        }
        let slot = self.slots.get_mut(usize::from(request.chain.head())).ok_or(Status::IoErr)?;
        slot.ranges.clear();
        let listed = request.ranges(batch, kind, params, &mut slot.ranges);
        if listed.is_err() {
            // None of them is left for the slot's next request.
            slot.ranges.clear();
        }
        request.bytes = slot.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len));
        slot.ranges.reverse();
        request.listed = Some(listed);
        listed
    }

    /// Forgets the ranges of a request that isn't carried out.
    pub(crate) fn forget(&mut self, request: &Request<D>) {
        if let Some(slot) = self.slots.get_mut(usize::from(request.chain.head())) {
            slot.forget();
        }
    }

    /// Makes the first of the operations that carry out `request`, whose data is a list of ranges.
    ///
    /// # Errors
    /// The request, if one of its ranges can't be: then none is touched. Also if there is nothing to
    /// do.
    pub(crate) fn start_ranges<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut request: Request<D>,
        kind: RangeKind,
        durable: bool,
        params: &Params,
    ) -> Result<Io, Option<Refused<D>>> {
        if let Err(status) = self.list(batch, &mut request, kind, params) {
            return Err(Some(Refused(request, status)));
        }
        let piece = self.piece;
        let slot = match self.slots.get_mut(usize::from(request.chain.head())) {
            Some(slot) if !self.canceller.is_cancelled() => slot,
            _ => {
                self.forget(&request);
                return Err(Some(Refused(request, Status::IoErr)));
            }
        };
        let Some(Range { command, offset, len }) = Range::next_piece(&mut slot.ranges, piece)
        else {
            return Err(Some(Refused(request, Status::Ok)));
        };
        // One flush for all of them.
        slot.durable = durable;
        self.start(batch, request, command, false, (offset, len))
    }

    /// A flush that no request asked for.
    pub(crate) fn own_flush(&self) -> Io {
        // SAFETY: nothing was gathered.
        unsafe { Spare::new().begin(self.id | NO_SLOT, Command::Flush, false, (0, 0)) }
    }

    /// Whether something comes after `io` in its request. Nothing does if it
    /// [is plain](Io::is_plain).
    #[inline]
    pub(crate) fn has_more(&self, io: &Io) -> bool {
        self.index(io).and_then(|index| self.slots.get(index)).is_some_and(Slot::has_more)
    }

    /// Takes back the last operation of a request. `None` if it was none of a request.
    #[inline(always)]
    pub(crate) fn finish_last(&mut self, io: Io) -> Option<Request<D>> {
        let index = self.index(&io)?;
        let slot = self.slots.get_mut(index)?;
        self.spares.push(io.end());
        slot.request.take()
    }

    /// Where the request of an operation rests, if it is one of this table.
    #[inline]
    fn index(&self, io: &Io) -> Option<usize> {
        let tag = io.tag();
        if tag & !NO_SLOT != self.id {
            return None;
        }
        usize::try_from(tag & NO_SLOT).ok()
    }

    /// Takes an operation back. Of a request whose operation failed nothing comes next.
    pub(crate) fn finish(&mut self, io: Io, failed: bool) -> Finished<D> {
        let index = self.index(&io);
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else {
            return Finished::None;
        };
        let mut cancelled = false;
        if !failed && slot.has_more() {
            cancelled = self.canceller.is_cancelled();
            if !cancelled && let Some(next) = slot.next(self.piece) {
                return Finished::Next(io.again(next.command, (next.offset, next.len)));
            }
        }
        slot.forget();
        self.spares.push(io.end());
        match slot.request.take() {
            Some(request) if cancelled => Finished::Cancelled(request),
            Some(request) => Finished::Request(request),
            None => Finished::None,
        }
    }
}

impl<D: GuestAddressSpace> Drop for InFlight<D> {
    /// An [`Io`] that an engine didn't give back may still be used: the guard on its memory is
    /// leaked.
    fn drop(&mut self) {
        self.slots.drain(..).for_each(|slot| std::mem::forget(slot.request));
    }
}
