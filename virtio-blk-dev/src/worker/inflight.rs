use std::sync::atomic::{AtomicU64, Ordering};

use virtio_mmio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::canceller::Canceller;
use crate::device::Params;
use crate::engine::{Command, Io, Spare};
use crate::request::{BlkRequest, Range, RangeKind, Status};

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
    request: Option<BlkRequest<D>>,
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
pub(crate) struct Refused<D: GuestAddressSpace>(pub(crate) BlkRequest<D>, pub(crate) Status);

/// What an operation that has come back was for.
pub(crate) enum Finished<D: GuestAddressSpace> {
    /// The whole request.
    Request(BlkRequest<D>),
    /// A request that is given up although nothing failed.
    Cancelled(BlkRequest<D>),
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
            // None of them is left for the slot's next request.
            slot.ranges.clear();
        }
        request.bytes = slot.ranges.iter().fold(0, |sum, range| sum.saturating_add(range.len));
        slot.ranges.reverse();
        request.listed = Some(listed);
        listed
    }

    /// Forgets the ranges of a request that isn't carried out.
    pub(crate) fn forget(&mut self, request: &BlkRequest<D>) {
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
    pub(crate) fn finish_last(&mut self, io: Io) -> Option<BlkRequest<D>> {
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
