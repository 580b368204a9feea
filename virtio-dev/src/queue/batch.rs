//! Many operations on a live queue, with one look-up of its rings.

use std::sync::atomic::Ordering;

use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemory};

use super::area::RingInaccessible;
use super::bulk::{Bulk, Released};
use super::chain::{Buffer, Chain};
use super::collector::Totals;
use super::fault::RingFault;
use super::layout::{INDEX, need_event, slot};
use super::look_ahead::LookAhead;
use super::region_cache::{PlainSlice, RegionCache};
use super::rings::Rings;
use super::state::State;
use crate::sync::fence;

/// `VIRTQ_USED_F_NO_NOTIFY`
const NO_NOTIFY: u16 = 1;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`
const NO_INTERRUPT: u16 = 1;

/// A [`LiveQueue`](crate::LiveQueue) at work: the same operations, with the rings, and the regions
/// of plain memory, looked up once instead of each time.
pub struct Batch<'a, M: GuestMemory, D: GuestAddressSpace> {
    pub(super) rings: Rings<'a, M>,
    pub(super) requests: &'a D,
    /// A guard on the requests' memory, if that is plain. Each chain's guard is a clone of it.
    pub(super) plain_guard: Option<&'a D::T>,
    pub(super) regions: RegionCache<'a, D::M>,
    pub(super) state: &'a mut State,
    pub(super) bulk: Option<&'a mut (dyn Bulk<D> + 'static)>,
    pub(super) look_ahead: LookAhead,
}

impl<'a, M: GuestMemory, D: GuestAddressSpace> Batch<'a, M, D> {
    /// Takes the next chain. `None` if there is none, or the queue
    /// [is broken](crate::LiveQueue::is_broken).
    #[inline]
    pub fn pop(&mut self) -> Option<Chain<D>> {
        if self.state.next_avail == self.state.seen_avail && !self.poll_avail() {
            return None;
        }
        if self.look_ahead.is_on() {
            return self.pop_ahead();
        }
        self.pop_next()
    }

    /// Takes the next chain; there is one.
    #[inline]
    fn pop_next(&mut self) -> Option<Chain<D>> {
        let guard = self.plain_guard.map_or_else(|| self.requests.memory(), D::T::clone);
        let mut buffers = self.state.reuse();
        match self.walk(&guard, &mut buffers) {
            Ok((head, Totals { readable, readable_len, writable_len })) => {
                Some(Chain { head, guard, buffers, readable, readable_len, writable_len })
            }
            Err(fault) => {
                self.state.set_broken(fault);
                None
            }
        }
    }

    /// Takes back that a chain was popped, if it was the last one: it is available again, and so it is
    /// in the [positions](crate::LiveQueue::state). The next [`pop`](Self::pop) finds it without a
    /// notification.
    ///
    /// # Errors
    /// The chain, if another was popped after it.
    pub fn put_back(&mut self, chain: Chain<D>) -> Result<(), Chain<D>> {
        if !self.state.put_back(chain.head) {
            return Err(chain);
        }
        let Chain { guard, buffers, .. } = chain;
        drop(guard);
        self.state.recycle(buffers);
        Ok(())
    }

    /// Gives a chain back, in any order: drops its guard, then stages its used entry, which the
    /// driver sees with the next [`publish`](Self::publish). With a
    /// [`BulkMemory`](crate::BulkMemory) it is that call which drops the guards.
    ///
    /// `len` counts the bytes written from the first writable one on (virtio 1.2 §2.7.8.2); more
    /// than the chain has room for is cut to that.
    #[inline]
    pub fn complete(&mut self, chain: Chain<D>, len: u32) {
        self.complete_or(chain, len, |_| None);
    }

    /// As [`complete`](Self::complete). Where what was written reaches the guest only then, and not all of it can,
    /// the guest finds this byte at this address: the status of a request that failed.
    #[inline(always)]
    pub fn complete_or(
        &mut self,
        chain: Chain<D>,
        len: u32,
        if_lost: impl FnOnce(&Chain<D>) -> Option<(GuestAddress, u8)>,
    ) {
        // Asked of the chain only where it is used.
        let if_lost = if self.bulk.is_some() { if_lost(&chain) } else { None };
        let Chain { head, guard, buffers, writable_len, .. } = chain;
        if self.bulk.is_some() {
            self.release(guard, if_lost);
        } else {
            drop(guard);
        }
        self.state.recycle(buffers);
        if let Err(fault) = self.stage(head, len.min(writable_len)) {
            self.state.set_broken(fault);
        }
    }

    /// Publishes all staged entries with one store of the index, and interrupts the driver if it
    /// wants to know. Gives whether it asked for an interrupt; `None` if there was nothing to
    /// publish.
    #[inline]
    pub fn publish(&mut self) -> Option<bool> {
        if self.state.staged == 0 {
            return None;
        }
        if self.bulk.is_some() {
            self.flush();
        }
        match self.try_publish() {
            Ok(wanted) => {
                if wanted {
                    self.state.events.used_buffer();
                }
                Some(wanted)
            }
            Err(RingInaccessible) => {
                self.state.set_broken(RingFault::Ring);
                None
            }
        }
    }

    /// As [`LiveQueue::disable_notification`](crate::LiveQueue::disable_notification).
    pub fn disable_notification(&mut self) {
        if !self.state.event_idx && self.store_used_flags(NO_NOTIFY).is_err() {
            self.state.set_broken(RingFault::Ring);
        }
    }

    /// As [`LiveQueue::enable_notification`](crate::LiveQueue::enable_notification).
    pub fn enable_notification(&mut self) -> bool {
        if self.state.fault.is_some() {
            return false;
        }
        self.arm().unwrap_or_else(|RingInaccessible| {
            self.state.set_broken(RingFault::Ring);
            false
        })
    }

    /// Whether a chain is there to be [popped](Self::pop). Notifications stay as they are: this is
    /// what a worker that polls asks over and over.
    #[inline]
    pub fn is_available(&mut self) -> bool {
        self.state.next_avail != self.state.seen_avail || self.poll_avail()
    }

    /// How many chains are there to be [popped](Self::pop). 0 if the queue [is broken](crate::LiveQueue::is_broken).
    pub fn available(&mut self) -> u16 {
        match self.poll_avail() {
            true => self.state.seen_avail.wrapping_sub(self.state.next_avail),
            false => 0,
        }
    }

    /// The `len` bytes at `addr` of the memory that `chain` keeps, without a look-up: if that memory is
    /// plain, and one region has them. They last as long as the chain does.
    ///
    /// `None` says nothing about the address: ask the chain's [memory](Chain::memory). It is also
    /// what a chain gets that was popped while the driver had another memory, which this batch
    /// doesn't keep.
    #[inline]
    pub fn plain_slice(
        &mut self,
        chain: &Chain<D>,
        addr: GuestAddress,
        len: usize,
    ) -> Option<PlainSlice<'a, D::M>> {
        if self.is_kept_by(chain) { self.regions.slice(addr, len) } else { None }
    }

    /// Whether the chain's guard is on the memory whose region is cached. Two guards that exist at the
    /// same time and dereference to the same address are guards on the same memory.
    #[inline]
    fn is_kept_by(&self, chain: &Chain<D>) -> bool {
        const { assert!(size_of::<D::M>() != 0, "a memory of size 0 has no address of its own") };
        self.regions.is_cache_of(&chain.guard)
    }

    /// Lets the next `chains` calls of [`pop`](Self::pop) make the memory of many chains ready at once, which have
    /// no more than `bytes` bytes for the device to read. A chain of more is left to its accesses. Without a
    /// [`BulkMemory`](crate::BulkMemory) nothing is different.
    #[inline]
    pub fn look_ahead(&mut self, chains: usize, bytes: u64) {
        if self.bulk.is_some() {
            self.look_ahead = LookAhead { chains, bytes, ..self.look_ahead };
        }
    }

    #[cold]
    #[inline(never)]
    fn pop_ahead(&mut self) -> Option<Chain<D>> {
        if self.bulk.as_mut()?.ahead().is_empty() {
            self.fill();
        }
        self.look_ahead.chains = self.look_ahead.chains.saturating_sub(1);
        let state = &mut *self.state;
        if self.look_ahead.next != state.next_avail {
            // The chain that was put back.
            return self.pop_next();
        }
        let Some(chain) = self.bulk.as_mut()?.ahead().pop() else { return self.pop_next() };
        self.look_ahead.next = self.look_ahead.next.wrapping_add(1);
        if let Err(fault) = state.take(chain.head) {
            state.set_broken(fault);
            return None;
        }
        Some(chain)
    }

    /// Looks at chains from the next one on. A malformed one is left to its turn.
    #[cold]
    fn fill(&mut self) {
        let LookAhead { chains, bytes, .. } = self.look_ahead;
        let first = self.state.next_avail;
        let available = self.state.seen_avail.wrapping_sub(first);
        let mut left = bytes;
        for n in 0..available.min(u16::try_from(chains).unwrap_or(u16::MAX)) {
            let Ok(chain) = self.look_at(first.wrapping_add(n)) else { break };
            let (Some(rest), Some(bulk)) = (left.checked_sub(chain.readable_len()), &mut self.bulk)
            else {
                self.state.recycle(chain.buffers);
                break;
            };
            left = rest;
            bulk.ahead().push(chain);
        }
        self.look_ahead.next = first;
        if let Some(bulk) = &mut self.bulk
            && !bulk.ahead().is_empty()
        {
            bulk.fetch();
        }
    }

    #[inline(never)]
    fn look_at(&mut self, avail: u16) -> Result<Chain<D>, RingFault> {
        let guard = self.requests.memory();
        let state = &mut *self.state;
        let head = u16::from_le(self.rings.avail.view()?.entry(slot(avail, state.size))?);
        let descriptors = self.rings.descriptors.view()?;
        let mut buffers = state.reuse();
        let memory = (&*guard, &mut self.regions);
        match state.walker.walk(descriptors, head, memory, &mut buffers) {
            Ok(Totals { readable, readable_len, writable_len }) => {
                Ok(Chain { head, guard, buffers, readable, readable_len, writable_len })
            }
            Err(fault) => {
                state.recycle(buffers);
                Err(fault)
            }
        }
    }

    /// Leaves what is left of a chain to the memory of many.
    #[cold]
    #[inline(never)]
    fn release(&mut self, guard: D::T, if_lost: Option<(GuestAddress, u8)>) {
        if let Some(bulk) = &mut self.bulk {
            bulk.release(Released { guard, if_lost });
        }
    }

    #[cold]
    fn flush(&mut self) {
        if let Some(bulk) = &mut self.bulk {
            bulk.flush();
        }
    }

    /// Forgets the chains that were looked at and whose turn has not come.
    #[inline]
    pub(super) fn forget_ahead(&mut self) {
        if self.bulk.is_some() {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        let Some(bulk) = &mut self.bulk else { return };
        for chain in bulk.ahead().drain(..) {
            self.state.recycle(chain.buffers);
        }
    }

    /// Reads the driver's index; whether a chain is available that was not popped.
    fn poll_avail(&mut self) -> bool {
        if self.state.fault.is_some() {
            return false;
        }
        match self.read_avail_index() {
            Ok(more) => more,
            Err(fault) => {
                self.state.set_broken(fault);
                false
            }
        }
    }

    fn read_avail_index(&mut self) -> Result<bool, RingFault> {
        // Acquire: the entries and descriptors were written before the index.
        let index = u16::from_le(self.rings.avail.view()?.load(INDEX, Ordering::Acquire)?);
        let count = index.wrapping_sub(self.state.next_avail);
        if count > self.state.size {
            return Err(RingFault::AvailIndex(count));
        }
        self.state.seen_avail = index;
        Ok(count != 0)
    }

    /// Takes the chain of the next available entry: its head, and the sizes of its buffers.
    #[inline]
    fn walk(
        &mut self,
        memory: &D::M,
        buffers: &mut Vec<Buffer>,
    ) -> Result<(u16, Totals), RingFault> {
        let state = &mut *self.state;
        let entry = slot(state.next_avail, state.size);
        let head = u16::from_le(self.rings.avail.view()?.entry(entry)?);
        state.heads.take(head)?;
        let descriptors = self.rings.descriptors.view()?;
        let totals = state.walker.walk(descriptors, head, (memory, &mut self.regions), buffers)?;
        state.has_taken(head);
        Ok((head, totals))
    }

    /// Writes a used entry behind the published index.
    #[inline]
    fn stage(&mut self, head: u16, len: u32) -> Result<(), RingFault> {
        let state = &mut *self.state;
        state.heads.stage(head)?;
        state.in_flight = state.in_flight.wrapping_sub(1);
        let entry = slot(state.next_used.wrapping_add(state.staged), state.size);
        self.rings.used.view()?.set_entry(entry, [u32::from(head).to_le(), len.to_le()])?;
        state.staged = state.staged.wrapping_add(1);
        Ok(())
    }

    fn try_publish(&mut self) -> Result<bool, RingInaccessible> {
        let state = &mut *self.state;
        let old = state.next_used;
        let new = old.wrapping_add(std::mem::take(&mut state.staged));
        state.heads.publish();
        // Release: the entries, and what the device wrote for them, before the index.
        self.rings.used.view()?.store(new.to_le(), INDEX, Ordering::Release)?;
        state.next_used = new;
        // Either the driver, having armed its event, sees this index, or we see its event: a full
        // barrier on both sides, between the own store and the load of the other's.
        fence(Ordering::SeqCst);
        let avail = self.rings.avail.view()?;
        if state.event_idx {
            let event = u16::from_le(avail.load(avail.event(), Ordering::Relaxed)?);
            Ok(need_event(event, old, new))
        } else {
            let flags = u16::from_le(avail.load::<u16>(0, Ordering::Relaxed)?);
            Ok(flags & NO_INTERRUPT == 0)
        }
    }

    /// Enables notifications, then reads the driver's index again; whether an entry is available.
    pub(super) fn arm(&mut self) -> Result<bool, RingInaccessible> {
        if self.state.event_idx {
            let next = self.state.next_avail.to_le();
            let used = self.rings.used.view()?;
            used.store(next, used.event(), Ordering::Relaxed)?;
        } else {
            self.store_used_flags(0)?;
        }
        // As in `try_publish`, with the roles swapped.
        fence(Ordering::SeqCst);
        let index = u16::from_le(self.rings.avail.view()?.load(INDEX, Ordering::Acquire)?);
        Ok(index != self.state.next_avail)
    }

    pub(super) fn store_used_flags(&mut self, flags: u16) -> Result<(), RingInaccessible> {
        self.rings.used.view()?.store(flags.to_le(), 0, Ordering::Relaxed)
    }
}
