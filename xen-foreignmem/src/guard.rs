//! The two address spaces of a guest's memory, and the guards they give out.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use vm_memory::{GuestAddress, GuestAddressSpace};

use crate::copies::copy;
use crate::domain::Domain;
use crate::foreign::ForeignMemory;
use crate::grant::{CopySegment, GrantTable};
use crate::handle::{Handle, Kind};
use crate::lock::lock;
use crate::pinned::PinnedMemory;

/// One address space: what its guards share, and the memories that later guards use again.
struct Space<F: ForeignMemory, G: GrantTable> {
    handle: Arc<Handle<F, G>>,
    /// Empty memories whose allocations the next guards use.
    idle: Mutex<Vec<Arc<PinnedMemory<F, G>>>>,
}

/// Allocations kept for later guards: as many as a queue of the largest common size has requests.
const MAX_IDLE: usize = 1024;

impl<F: ForeignMemory, G: GrantTable> Space<F, G> {
    fn new(domain: Arc<Domain<F, G>>, kind: Kind) -> Arc<Self> {
        Arc::new(Self { handle: Arc::new(Handle::new(domain, kind)), idle: Mutex::default() })
    }

    fn guard(self: &Arc<Self>) -> Guard<F, G> {
        let idle = lock(&self.idle).pop();
        let memory = idle.unwrap_or_else(|| Arc::new(PinnedMemory::new(Arc::clone(&self.handle))));
        Guard { memory: Some(memory), space: Arc::clone(self) }
    }

    /// The memory of a guard, if it is one on this space.
    fn memory<'a>(&self, guard: &'a Guard<F, G>) -> Option<&'a PinnedMemory<F, G>> {
        guard.memory.as_deref().filter(|_| std::ptr::eq(&*guard.space, self))
    }

    fn fetch<'a>(
        &self,
        ranges: impl Iterator<Item = (&'a Guard<F, G>, GuestAddress, usize)> + Clone,
    ) {
        let Handle { domain, pool: Some(pool), copies, .. } = &*self.handle else { return };
        let Some(table) = &domain.grants else { return };
        lock(copies).with(|segments| {
            for (guard, addr, len) in ranges.clone() {
                if let Some(memory) = self.memory(guard) {
                    memory.with_copied(addr, len, |pins, range| {
                        pins.bounced.announce(pool, range, segments);
                    });
                }
            }
            if segments.is_empty() {
                return;
            }
            let tried = copy(&**table, segments, &domain.counters).was_tried;
            let segments = if tried { &segments[..] } else { &[] };
            for (guard, addr, len) in ranges {
                if let Some(memory) = self.memory(guard) {
                    memory.with_copied(addr, len, |pins, range| {
                        pins.bounced.settle(range, segments);
                    });
                }
            }
        });
    }

    /// The memory of a guard, if it is one on this space and has no clones.
    fn alone<'a>(&self, guard: &'a mut Guard<F, G>) -> Option<&'a mut PinnedMemory<F, G>> {
        let its = std::ptr::eq(&*guard.space, self);
        guard.memory.as_mut().filter(|_| its).and_then(Arc::get_mut)
    }

    fn write_back<T>(
        &self,
        requests: &mut [T],
        guard: impl Fn(&mut T) -> &mut Guard<F, G>,
        mut failed: impl FnMut(&mut T),
    ) {
        let Handle { domain, pool: Some(pool), copies, .. } = &*self.handle else { return };
        let Some(table) = &domain.grants else { return };
        lock(copies).with(|segments| {
            for request in &mut *requests {
                if let Some(memory) = self.alone(guard(request)) {
                    memory.pins().bounced.write_back(pool, segments);
                }
            }
            let copied = copy(&**table, segments, &domain.counters);
            if copied.was_tried {
                copied.count(&domain.counters);
            }
            let mut rest = &segments[..];
            for request in requests {
                let Some(memory) = self.alone(guard(request)) else { continue };
                let pins = memory.pins();
                let done = if copied.was_tried {
                    let (its, others) = rest.split_at(pins.bounced.dirty_pieces().min(rest.len()));
                    rest = others;
                    its.iter().all(CopySegment::is_done)
                } else {
                    // What is wrong may be one request's only.
                    pins.copy_all_out(&**table, pool, &domain.counters)
                };
                pins.bounced.clean();
                if !done {
                    failed(request);
                }
            }
        });
    }

    fn recycle(&self, memory: Arc<PinnedMemory<F, G>>) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(memory);
        }
    }
}

/// Keeps the memory that was accessed through it mapped, at its address, until it and its clones are dropped.
///
/// All grants are unmapped when the last one has been dropped.
pub struct Guard<F: ForeignMemory, G: GrantTable> {
    /// None only while it is dropped.
    memory: Option<Arc<PinnedMemory<F, G>>>,
    space: Arc<Space<F, G>>,
}

impl<F: ForeignMemory, G: GrantTable> Deref for Guard<F, G> {
    type Target = PinnedMemory<F, G>;

    fn deref(&self) -> &Self::Target {
        self.memory.as_deref().expect("held until the guard is dropped")
    }
}

impl<F: ForeignMemory, G: GrantTable> Clone for Guard<F, G> {
    fn clone(&self) -> Self {
        Self { memory: self.memory.clone(), space: Arc::clone(&self.space) }
    }
}

impl<F: ForeignMemory, G: GrantTable> Drop for Guard<F, G> {
    fn drop(&mut self) {
        // If the last two clones are dropped at the same time, possibly neither finds itself the only one. The
        // memory is then released when the second of them drops it.
        if let Some(mut memory) = self.memory.take()
            && let Some(alone) = Arc::get_mut(&mut memory)
        {
            alone.release();
            self.space.recycle(memory);
        }
    }
}

impl<F: ForeignMemory, G: GrantTable> fmt::Debug for Guard<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&**self).finish()
    }
}

/// The address space for a queue's rings: grants are mapped, writable if the guest allows it, and shared with
/// the guest.
///
/// Take one guard when the queue becomes ready, access the rings through it, and drop it before the
/// reset, or the write of 0 to QueueReady, is answered. A clone shares its lookups with the
/// original; give each queue one of its own from [`DomainMemory`](crate::DomainMemory::rings).
pub struct Rings<F: ForeignMemory, G: GrantTable>(Arc<Space<F, G>>);

/// The address space for requests, with a guard for each request.
///
/// Granted ranges are copied. For reading, they are copied from the guest at the first access, or for many guards
/// in one call before ([`fetch`](Self::fetch)); ranges accessed only for writing are cleared, and copied to the guest
/// when the guard is dropped, all in one call, or with many other guards' in one ([`write_back`](Self::write_back)). What
/// is too long, or finds no room for its copy, is mapped until the guard is dropped. Publish the used entry after that: a guest that finds a
/// page still mapped when it ends its grant stops using the device.
///
/// A clone shares its lookups and its pages for copies with the original; give each queue one of its
/// own from [`DomainMemory`](crate::DomainMemory::requests).
pub struct Requests<F: ForeignMemory, G: GrantTable>(Arc<Space<F, G>>);

macro_rules! address_space {
    ($name:ident) => {
        impl<F: ForeignMemory, G: GrantTable> $name<F, G> {
            pub(crate) fn new(domain: Arc<Domain<F, G>>) -> Self {
                Self(Space::new(domain, Kind::$name))
            }
        }

        impl<F: ForeignMemory, G: GrantTable> GuestAddressSpace for $name<F, G> {
            type M = PinnedMemory<F, G>;
            type T = Guard<F, G>;

            fn memory(&self) -> Guard<F, G> {
                self.0.guard()
            }
        }

        impl<F: ForeignMemory, G: GrantTable> Clone for $name<F, G> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<F: ForeignMemory, G: GrantTable> fmt::Debug for $name<F, G> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0.handle.domain).finish()
            }
        }
    };
}

address_space!(Rings);
address_space!(Requests);

impl<F: ForeignMemory, G: GrantTable> Requests<F, G> {
    /// Copies granted ranges that will be read, each through its guard, in one call: so a batch of requests costs
    /// one. Later accesses find them there.
    ///
    /// Ranges that wouldn't be copied, or whose copy fails, are left to their access, which maps or copies them, or
    /// gives the error.
    pub fn fetch<'a>(
        &self,
        ranges: impl Iterator<Item = (&'a Guard<F, G>, GuestAddress, usize)> + Clone,
    ) {
        self.0.fetch(ranges);
    }

    /// Copies what requests have written to the guest, in one call for all of them, before their guards, of which
    /// there are no clones, are dropped.
    ///
    /// `failed` is called for those of which something could not be copied, as the guest has not granted it, or
    /// not for writing. What it writes goes to the guest when the guard is dropped.
    pub fn write_back<T>(
        &self,
        requests: &mut [T],
        guard: impl Fn(&mut T) -> &mut Guard<F, G>,
        failed: impl FnMut(&mut T),
    ) {
        self.0.write_back(requests, guard, failed);
    }
}
