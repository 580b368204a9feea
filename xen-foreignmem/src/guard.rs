//! The two address spaces of a guest's memory, and the guards they give out.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use vm_memory::GuestAddressSpace;

use crate::domain::Domain;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
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
/// Short granted ranges are copied. For reading, they are copied from the guest at the first access; ranges
/// accessed only for writing are cleared, and copied to the guest when the guard is dropped, all in one call.
/// Longer ranges are mapped until the guard is dropped. Publish the used entry after that: a guest that finds a
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
