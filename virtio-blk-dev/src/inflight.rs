use std::sync::atomic::{AtomicU64, Ordering};

use virtio_mmio_dev::{Buffer, Chain};
use vm_memory::{GuestAddress, GuestAddressSpace, Permissions};

use crate::buffers::{BadAddress, Segments};
use crate::engine::{Command, Io};
use crate::request::{Header, RequestKind};

/// A request whose header has been read.
pub(crate) struct Request<D: GuestAddressSpace> {
    pub(crate) chain: Chain<D>,
    pub(crate) kind: RequestKind,
    pub(crate) sector: u64,
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
    fn gather(&self, command: Command, segments: &mut Segments) -> Result<(), BadAddress> {
        let (buffers, skip, len, access) = match command {
            Command::Read => (self.chain.writable(), 0, self.data_in(), Permissions::Write),
            Command::Write => {
                let skip = Header::LEN as u64;
                (self.chain.readable(), skip, self.data_out(), Permissions::Read)
            }
            _ => return Ok(()),
        };
        for (addr, len) in window(buffers, skip, len) {
            segments.gather(&**self.chain.memory(), addr?, len, access)?;
        }
        Ok(())
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
    slots: Vec<Option<Request<D>>>,
    free: Vec<u16>,
    spares: Vec<Segments>,
    /// Tells this table's tags from those of any other.
    id: u64,
}

const SLOT_BITS: u32 = 16;

impl<D: GuestAddressSpace> InFlight<D> {
    pub(crate) fn new(queue_size: u16) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            slots: (0..queue_size).map(|_| None).collect(),
            free: (0..queue_size).rev().collect(),
            spares: Vec::with_capacity(usize::from(queue_size)),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Makes the operation that carries out `request`.
    ///
    /// # Errors
    /// The request, if its data isn't all in guest memory.
    pub(crate) fn start(
        &mut self,
        request: Request<D>,
        command: Command,
        durable: bool,
        range: (u64, u64),
    ) -> Result<Io, Option<Request<D>>> {
        // As many slots as a queue has requests in flight.
        let Some(index) = self.free.pop() else { return Err(Some(request)) };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Err(Some(request)) };
        let mut segments = self.spares.pop().unwrap_or_default();
        if slot.insert(request).gather(command, &mut segments).is_err() {
            let request = slot.take();
            self.release(index, segments);
            return Err(request);
        }
        // SAFETY: the memory was looked up through the guard in the chain, which now rests in a
        // slot of its own, neither moved nor touched until `finish` has the `Io`, and so the
        // `Mapped` in it, back. A slot whose `Io` never comes back is leaked by `drop`.
        let memory = unsafe { segments.assume_mapped() };
        Ok(Io::new((self.id << SLOT_BITS) | u64::from(index), command, durable, range, memory))
    }

    /// The request that `io` carried out; `None` for an operation of another table.
    pub(crate) fn finish(&mut self, io: Io) -> Option<Request<D>> {
        let tag = io.tag();
        if tag >> SLOT_BITS != self.id {
            return None;
        }
        let index = (tag & u64::from(u16::MAX)) as u16;
        self.release(index, io.into_segments());
        self.slots.get_mut(usize::from(index))?.take()
    }

    fn release(&mut self, index: u16, mut segments: Segments) {
        segments.clear();
        self.spares.push(segments);
        self.free.push(index);
    }
}

impl<D: GuestAddressSpace> Drop for InFlight<D> {
    /// An [`Io`] that an engine didn't give back may still be used: the guard on its memory is
    /// leaked.
    fn drop(&mut self) {
        self.slots.drain(..).for_each(std::mem::forget);
    }
}
