use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_dev::{Batch, Chain};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory};

use crate::clock::Clock;
use crate::request::{BlkRequest, RequestKind, Status, used_len};
use crate::stats::Counters;

/// How a request ended.
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// Bytes known to be written, from the first device-writable one on, without the status.
    pub(crate) written: u64,
    /// Bytes transferred, for the statistics.
    pub(crate) moved: u64,
}

impl Outcome {
    pub(crate) const fn failed(status: Status) -> Self {
        Self { status, written: 0, moved: 0 }
    }

    /// Copies `data` to the guest, as far as there is room (virtio 1.2 §5.2.6).
    pub(crate) fn copied<D: GuestAddressSpace>(request: &BlkRequest<D>, data: &[u8]) -> Self {
        let room = usize::try_from(request.data_in()).unwrap_or(usize::MAX).min(data.len());
        match request.chain.copy_to(0, data.get(..room).unwrap_or_default()) {
            Ok(n) => Self { status: Status::Ok, written: n as u64, moved: n as u64 },
            Err(_) => Self::failed(Status::IoErr),
        }
    }

    /// The outcome of a request that an engine carried out.
    #[inline]
    pub(crate) fn carried_out<D: GuestAddressSpace>(
        request: &BlkRequest<D>,
        status: Status,
    ) -> Self {
        match (status, request.kind) {
            (Status::Ok, RequestKind::Read) => {
                Self { status, written: request.bytes, moved: request.bytes }
            }
            (Status::Ok, _) => Self { status, written: 0, moved: request.bytes },
            _ => Self::failed(status),
        }
    }
}

/// Returns requests to the driver, and counts them.
pub(crate) struct Answers {
    /// The number of requests answered so far.
    pub(crate) count: u64,
    counters: Arc<Counters>,
    /// The kinds of the requests answered and not published, and when they were taken.
    staged: Vec<(RequestKind, u64)>,
}

impl Answers {
    pub(crate) fn new(queue_size: u16, counters: Arc<Counters>) -> Self {
        Self { count: 0, counters, staged: Vec::with_capacity(queue_size.into()) }
    }

    /// Writes the status, after all data, and stages the used entry.
    #[inline]
    pub(crate) fn answer<M: GuestMemory, D: GuestAddressSpace>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        outcome: &Outcome,
    ) {
        let len = if put_status(batch, &request.chain, outcome.status) {
            used_len(request.data_in(), outcome.written)
        } else {
            self.counters.without_status.add(1);
            0
        };
        let ok = matches!(outcome.status, Status::Ok);
        self.counters.count(request.kind, ok, outcome.moved);
        self.count = self.count.wrapping_add(1);
        self.staged.push((request.kind, request.taken_at));
        batch.complete_or(request.chain, len, |chain| {
            status_address(chain).map(|addr| (addr, Status::IoErr as u8))
        });
    }

    /// Publishes the staged answers to the driver. Returns the reading of `clock` at which these requests
    /// ended, if there were any.
    pub(crate) fn publish<M: GuestMemory, D: GuestAddressSpace>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        clock: &Clock,
    ) -> Option<u64> {
        if self.staged.is_empty() {
            return None;
        }
        let wanted = batch.publish();
        self.counters.batches.add(1);
        if wanted != Some(true) {
            self.counters.interrupts_suppressed.add(1);
        }
        let now = clock.nanos();
        for (kind, taken_at) in self.staged.drain(..) {
            self.counters.took(kind, now.saturating_sub(taken_at));
        }
        Some(now)
    }
}

/// Writes the status, the last device-writable byte of the chain. `false` if there is no such byte, or it
/// isn't in guest memory.
#[inline]
fn put_status<M: GuestMemory, D: GuestAddressSpace>(
    batch: &mut Batch<'_, M, D>,
    chain: &Chain<D>,
    status: Status,
) -> bool {
    let Some(addr) = status_address(chain) else { return false };
    match batch.plain_slice(chain, addr, 1) {
        Some(slice) => slice.store(status as u8, 0, Ordering::Relaxed).is_ok(),
        None => chain.memory().store(status as u8, addr, Ordering::Relaxed).is_ok(),
    }
}

#[inline]
fn status_address<D: GuestAddressSpace>(chain: &Chain<D>) -> Option<GuestAddress> {
    let last = chain.writable().last()?;
    last.addr.0.checked_add(u64::from(last.len).saturating_sub(1)).map(GuestAddress)
}
