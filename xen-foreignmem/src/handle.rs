//! What the guards of one address space share.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::bounce::BouncePool;
use crate::chunk::{Chunk, Lookaside};
use crate::copies::Copies;
use crate::domain::Domain;
use crate::error::MapError;
use crate::foreign::ForeignMemory;
use crate::grant::GrantTable;
use crate::lock::lock;

/// How one address space reaches the guest's memory.
pub(crate) struct Handle<F: ForeignMemory, G: GrantTable> {
    pub(crate) domain: Arc<Domain<F, G>>,
    /// For requests, where grants can be copied.
    pub(crate) pool: Option<BouncePool>,
    /// For copies of many guards.
    pub(crate) copies: Mutex<Copies>,
    kind: Kind,
    lookaside: Mutex<Lookaside>,
}

/// What an address space is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Rings,
    Requests,
}

impl<F: ForeignMemory, G: GrantTable> Handle<F, G> {
    pub(crate) fn new(domain: Arc<Domain<F, G>>, kind: Kind) -> Self {
        let copies = kind == Kind::Requests && domain.grants.is_some();
        let pool = copies.then(|| BouncePool::new(domain.layout.bounce_page_count()));
        Self {
            domain,
            pool,
            copies: Mutex::default(),
            kind,
            lookaside: Mutex::new(Lookaside::new()),
        }
    }

    pub(crate) fn is_for_rings(&self) -> bool {
        self.kind == Kind::Rings
    }

    /// A chunk that has the page of `range.start`; the range is in a bank.
    ///
    /// Rings have mappings of their own: they last as long as the queue, and would keep the memory of all
    /// of a cached chunk from Xen when the guest gives it back.
    pub(crate) fn chunk(&self, range: Range<u64>) -> Result<Arc<Chunk>, MapError> {
        if self.kind == Kind::Rings {
            return self.domain.ring(range);
        }
        let addr = range.start;
        let number = self.domain.layout.chunk_number(addr);
        let known = lock(&self.lookaside).get(number, addr);
        if let Some(chunk) = known {
            chunk.touch(self.domain.chunks.now());
            return Ok(chunk);
        }
        let chunk = self.domain.chunk(range)?;
        lock(&self.lookaside).put(number, &chunk);
        Ok(chunk)
    }
}
