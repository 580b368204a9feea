//! The live queue: pop, complete, publish.

use std::ops::Deref;

use vm_memory::{GuestAddressSpace, GuestMemory};

use super::area::RingInaccessible;
use super::batch::Batch;
use super::bulk::{Bulk, BulkMemory, BulkQueue};
use super::chain::Chain;
use super::events::QueueEvents;
use super::fault::RingFault;
use super::layout::Layout;
use super::look_ahead::LookAhead;
use super::region_cache::RegionCache;
use super::rings::Rings;
use super::state::State;
use crate::{QueueConfig, QueueError};

/// The positions of a queue in its rings, for a device that is to be resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Next available entry to take.
    pub next_avail: u16,
    /// Next used entry to write: the used index as last published.
    pub next_used: u16,
    /// The driver broke the ring's rules: the queue is not to be served before it is set up anew.
    pub broken: bool,
}

/// A live split virtqueue, owned by the one worker that serves it.
///
/// `R` gives access to the rings; its guard is taken once and held, so dropping the queue releases
/// the rings. `D` gives access to the requests; each chain holds a guard of its own.
///
/// Each operation here looks up the parts of the ring it needs; a worker with more than a request
/// at a time does them in a [`batch`](Self::batch).
///
/// A driver that breaks the ring's rules breaks the queue: `DEVICE_NEEDS_RESET` is set, nothing
/// more is popped, and [`fault`](Self::fault) says why. Chains in flight can still be completed.
/// Buffer addresses are not checked here, but when a request accesses them.
///
/// Memory: a chain is at most [`size_max`](QueueConfig::size_max) buffers of 16 bytes, and at most
/// `size` chains are in flight.
pub struct LiveQueue<R: GuestAddressSpace, D: GuestAddressSpace> {
    rings: R::T,
    requests: D,
    layout: Layout,
    state: State,
    /// For memory that is made ready for many requests at once.
    bulk: Option<Box<dyn Bulk<D>>>,
}

impl<R: GuestAddressSpace, D: GuestAddressSpace> LiveQueue<R, D> {
    /// Takes a ready queue into service, notifications enabled. Treat it as notified: a kick may
    /// have come before. Behind a transport `events` is the
    /// [`interrupt`](crate::ControlPlane::interrupt) that [`Queues::start`](crate::Queues::start) gets.
    ///
    /// # Errors
    /// Rings that are misaligned, run past the address space's end, or are not in the memory that
    /// `rings` gives. `DEVICE_NEEDS_RESET` is set then: it is the driver's mistake.
    pub fn new(
        config: &QueueConfig,
        rings: &R,
        requests: D,
        events: impl QueueEvents + 'static,
    ) -> Result<Self, QueueError> {
        let (layout, rings) = Self::checked(config, rings).inspect_err(|_| events.needs_reset())?;
        let state = State::new(config, Box::new(events));
        let mut queue = Self { rings, requests, layout, state, bulk: None };
        // A resumed queue may have notifications disabled; EVENT_IDX wants the flags 0 at all times
        // (virtio 1.2 §2.7.10.2).
        let mut batch = queue.once();
        let armed = batch.store_used_flags(0).and_then(|()| batch.arm());
        drop(batch);
        if let Err(RingInaccessible) = armed {
            queue.state.events.needs_reset();
            return Err(layout.used.inaccessible(config.index));
        }
        Ok(queue)
    }

    /// Has the memory of requests made ready and given back for many of them at once, where
    /// [looking ahead](Batch::look_ahead) and [publishing](Batch::publish) do that.
    #[must_use]
    pub fn with_bulk(mut self, memory: Box<dyn BulkMemory<D>>) -> Self
    where
        D: GuestAddressSpace<T: Send> + 'static,
    {
        self.bulk = Some(Box::new(BulkQueue::new(memory, self.state.size)));
        self
    }

    fn checked(config: &QueueConfig, rings: &R) -> Result<(Layout, R::T), QueueError> {
        let layout = Layout::new(config)?;
        let rings = rings.memory();
        layout.check(config.index, rings.deref())?;
        Ok((layout, rings))
    }

    /// Does many operations at once. If the requests' memory is plain, a guard on it is held
    /// meanwhile.
    #[inline]
    pub fn batch<T>(&mut self, work: impl FnOnce(&mut Batch<'_, R::M, D>) -> T) -> T {
        // Behind a translation a guard may hold mappings of a request, so only requests have one.
        let guard = self.bulk.is_none().then(|| self.requests.memory());
        let plain_guard = guard.filter(|m| m.physical_memory().is_some());
        let mut batch = Batch {
            rings: Rings::new(&self.layout, self.rings.deref()),
            requests: &self.requests,
            plain_guard: plain_guard.as_ref(),
            regions: RegionCache::new(plain_guard.as_deref()),
            state: &mut self.state,
            bulk: self.bulk.as_deref_mut(),
            look_ahead: LookAhead::default(),
        };
        let result = work(&mut batch);
        batch.forget_ahead();
        result
    }

    /// A batch of one operation, for which nothing is looked up in advance.
    fn once(&mut self) -> Batch<'_, R::M, D> {
        Batch {
            rings: Rings::new(&self.layout, self.rings.deref()),
            requests: &self.requests,
            plain_guard: None,
            regions: RegionCache::new(None),
            state: &mut self.state,
            bulk: self.bulk.as_deref_mut(),
            look_ahead: LookAhead::default(),
        }
    }

    /// Takes the next chain. `None` if there is none, or the queue [is broken](Self::is_broken).
    pub fn pop(&mut self) -> Option<Chain<D>> {
        self.once().pop()
    }

    /// Takes back that a chain was popped, as [`Batch::put_back`] does.
    ///
    /// # Errors
    /// The chain, if another was popped after it.
    pub fn put_back(&mut self, chain: Chain<D>) -> Result<(), Chain<D>> {
        self.once().put_back(chain)
    }

    /// Gives a chain back, as [`Batch::complete`] does.
    pub fn complete(&mut self, chain: Chain<D>, len: u32) {
        self.once().complete(chain, len);
    }

    /// Publishes all staged entries with one store of the index, and interrupts the driver if it
    /// wants to know. Gives whether it asked for an interrupt.
    pub fn publish(&mut self) -> bool {
        self.once().publish() == Some(true)
    }

    /// Asks the driver not to kick. A hint: kicks may still come. With `EVENT_IDX` there is nothing
    /// to do, as a driver kicks once for each time [`enable_notification`](Self::enable_notification)
    /// armed it.
    pub fn disable_notification(&mut self) {
        self.once().disable_notification();
    }

    /// Asks the driver to kick for the next chain. `true` if one came meanwhile, for which there
    /// may be no kick: go on popping.
    pub fn enable_notification(&mut self) -> bool {
        self.once().enable_notification()
    }

    /// The queue's index.
    pub fn index(&self) -> u16 {
        self.state.index
    }

    /// The queue's size.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// How many chains are popped and not completed.
    pub fn in_flight(&self) -> u16 {
        self.state.in_flight
    }

    /// The driver broke the ring's rules: `DEVICE_NEEDS_RESET` is set, nothing is popped any more.
    pub fn is_broken(&self) -> bool {
        self.state.fault.is_some()
    }

    /// What broke the queue.
    pub fn fault(&self) -> Option<RingFault> {
        self.state.fault
    }

    /// Breaks the queue: the device can't serve it any more, and its driver shouldn't wait for answers.
    /// `DEVICE_NEEDS_RESET` is set, and [`fault`](Self::fault) is [`RingFault::GivenUp`].
    ///
    /// A queue that is dropped in a panic does the same.
    pub fn give_up(&mut self) {
        self.state.set_broken(RingFault::GivenUp);
    }

    /// The queue's positions. `next_avail` is past the chains in flight.
    pub fn state(&self) -> Positions {
        Positions {
            next_avail: self.state.next_avail,
            next_used: self.state.next_used,
            broken: self.is_broken(),
        }
    }
}
