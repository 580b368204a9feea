use std::sync::atomic::{AtomicU64, Ordering};

use virtio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::canceller::Canceller;
use crate::device::Params;
use crate::engine::{Command, Io, IoAllocation};
use crate::request::{BlkRequest, Range, RangeKind, Status};

/// The requests whose operations are in flight.
///
/// A request is stored here from before its guest memory is looked up until its [`Io`] is returned by the
/// engine: this keeps the memory mapped while the engine uses it.
pub(crate) struct InFlight<D: GuestAddressSpace> {
    /// Indexed by the head of the chain, which is unique among the chains in flight.
    slots: Vec<Slot<D>>,
    /// Allocations to use again. The one used last is taken first, as it is still in the cache.
    free: Vec<IoAllocation>,
    /// The high bits of this table's tags, unique in the process.
    id: u64,
    /// The most bytes of a range in one operation.
    pub(crate) piece: u64,
    pub(crate) canceller: Canceller,
}

struct Slot<D: GuestAddressSpace> {
    request: Option<BlkRequest<D>>,
    /// The ranges of the request that are left, in reverse.
    ranges: Vec<Range>,
    /// A flush follows the last range.
    durable: bool,
}

impl<D: GuestAddressSpace> Slot<D> {
    #[inline]
    fn has_more(&self) -> bool {
        self.durable || !self.ranges.is_empty()
    }

    /// The next piece of a range, or the flush after the last.
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

/// A request without an operation, and the status to answer it with.
pub(crate) struct Refused<D: GuestAddressSpace>(pub(crate) BlkRequest<D>, pub(crate) Status);

/// What a completed operation belonged to.
pub(crate) enum Finished<D: GuestAddressSpace> {
    /// A request that is complete.
    Request(BlkRequest<D>),
    /// A request that was cancelled between two operations.
    Cancelled(BlkRequest<D>),
    /// A request that continues with this operation.
    Next(Io),
    /// No request: an internal flush, or an operation of another table.
    None,
}

impl<D: GuestAddressSpace> InFlight<D> {
    pub(crate) fn new(queue_size: u16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            slots: (0..queue_size)
                .map(|_| Slot { request: None, ranges: Vec::new(), durable: false })
                .collect(),
            free: Vec::with_capacity(usize::from(queue_size)),
            id: NEXT.fetch_add(1, Ordering::Relaxed) << SLOT_BITS,
            piece: PIECE,
            canceller: Canceller::default(),
        }
    }

    /// Makes the operation of `request`.
    ///
    /// # Errors
    /// The request, if its data isn't all in guest memory.
    #[inline(always)]
    pub(crate) fn start<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
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
        let mut allocation = self.free.pop().unwrap_or_else(IoAllocation::new);
        let gathered = slot.request.insert(request).gather(batch, command, allocation.segments());
        if gathered.is_err() {
            allocation.segments().clear();
            self.free.push(allocation);
            return Err(slot.request.take().map(refused));
        }
        let tag = self.id | u64::from(head);
        // SAFETY: the memory was looked up through the guard in the chain, or in plain memory that
        // this guard is one on, which `Batch::plain_slice` checks. The chain now rests in a slot of
        // its own, neither moved nor touched until `finish` or `finish_last` has the `Io` back. A slot
        // whose `Io` never comes back is leaked by `drop`.
        let io = unsafe { allocation.begin(tag, command, durable, range) };
        Ok(io)
    }

    /// Reads the list of ranges that is the data of `request` into its slot, once.
    ///
    /// # Errors
    /// The status, if one of the ranges is invalid: then the slot has no ranges.
    pub(crate) fn list<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: &mut BlkRequest<D>,
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
            // The slot's next request mustn't find any of them.
            slot.ranges.clear();
        }
        request.bytes = slot.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len));
        slot.ranges.reverse();
        request.listed = Some(listed);
        listed
    }

    /// Drops the ranges of a request that isn't carried out.
    pub(crate) fn forget(&mut self, request: &BlkRequest<D>) {
        if let Some(slot) = self.slots.get_mut(usize::from(request.chain.head())) {
            slot.forget();
        }
    }

    /// Makes the first operation of `request`, whose data is a list of ranges.
    ///
    /// # Errors
    /// The request, if one of its ranges is invalid: then none is processed. Also if all ranges are empty.
    pub(crate) fn start_ranges<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut request: BlkRequest<D>,
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
        // One flush after the last range makes all of them durable.
        slot.durable = durable;
        self.start(batch, request, command, false, (offset, len))
    }

    /// A flush that belongs to no request.
    pub(crate) fn internal_flush(&self) -> Io {
        // SAFETY: nothing was gathered.
        unsafe { IoAllocation::new().begin(self.id | NO_SLOT, Command::Flush, false, (0, 0)) }
    }

    /// Whether the request of `io` has further operations. It has none if `io` [is plain](Io::is_plain).
    #[inline]
    pub(crate) fn has_more(&self, io: &Io) -> bool {
        self.index(io).and_then(|index| self.slots.get(index)).is_some_and(Slot::has_more)
    }

    /// Completes the last operation of a request. `None` if it belongs to no request of this table.
    #[inline(always)]
    pub(crate) fn finish_last(&mut self, io: Io) -> Option<BlkRequest<D>> {
        let index = self.index(&io)?;
        let slot = self.slots.get_mut(index)?;
        self.free.push(io.end());
        slot.request.take()
    }

    /// The slot of an operation's request, if it belongs to this table.
    #[inline]
    fn index(&self, io: &Io) -> Option<usize> {
        let tag = io.tag();
        if tag & !NO_SLOT != self.id {
            return None;
        }
        usize::try_from(tag & NO_SLOT).ok()
    }

    /// Completes an operation. After a failed one the rest of its request is skipped.
    pub(crate) fn finish(&mut self, io: Io, failed: bool) -> Finished<D> {
        let index = self.index(&io);
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else {
            return Finished::None;
        };
        let mut cancelled = false;
        if !failed && slot.has_more() {
            cancelled = self.canceller.is_cancelled();
            if !cancelled && let Some(next) = slot.next(self.piece) {
                return Finished::Next(io.into_next(next.command, (next.offset, next.len)));
            }
        }
        slot.forget();
        self.free.push(io.end());
        match slot.request.take() {
            Some(request) if cancelled => Finished::Cancelled(request),
            Some(request) => Finished::Request(request),
            None => Finished::None,
        }
    }
}

impl<D: GuestAddressSpace> Drop for InFlight<D> {
    /// An [`Io`] that the engine didn't return may still be used: the guard on its memory is leaked.
    fn drop(&mut self) {
        self.slots.drain(..).for_each(|slot| std::mem::forget(slot.request));
    }
}
