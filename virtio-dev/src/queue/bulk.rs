//! Memory that many requests get, or give back, at once.

use vm_memory::{GuestAddress, GuestAddressSpace};

use super::chain::Chain;

/// What does for many requests at once what their guards do one by one, for memory where each access costs a
/// call: as grants of another domain, which are copied.
pub trait BulkMemory<D: GuestAddressSpace>: Send {
    /// Makes ready what the device may read of these chains, through their guards. This is a hint: whatever
    /// fails here is found again by the access, which gives the error.
    fn fetch(&mut self, chains: &[Chain<D>]);

    /// Has what was written for these chains, which are done, reach the guest, and drops their guards; none is left
    /// when it returns. Their used entries are published after that.
    fn release(&mut self, chains: &mut Vec<Released<D>>);
}

/// What is left of a chain that is done.
#[derive(Debug)]
pub struct Released<D: GuestAddressSpace> {
    /// The guard of its memory.
    pub guard: D::T,
    /// The byte that the guest is to find at this address if not all that was written for the chain can reach it.
    pub if_lost: Option<(GuestAddress, u8)>,
}

/// What a queue with such a memory keeps.
pub(super) trait Bulk<D: GuestAddressSpace>: Send {
    /// Chains that were looked at ahead of their turn, the next one last.
    fn ahead(&mut self) -> &mut Vec<Chain<D>>;

    /// Fetches what is ahead, the next chain first, and turns the order.
    fn fetch(&mut self);

    /// Keeps what is left of a chain until the next flush.
    fn release(&mut self, chain: Released<D>);

    /// Drops what was kept.
    fn flush(&mut self);
}

pub(super) struct BulkQueue<D: GuestAddressSpace> {
    memory: Box<dyn BulkMemory<D>>,
    ahead: Vec<Chain<D>>,
    released: Vec<Released<D>>,
}

impl<D: GuestAddressSpace> BulkQueue<D> {
    pub(super) fn new(memory: Box<dyn BulkMemory<D>>, size: u16) -> Self {
        let released = Vec::with_capacity(size.into());
        Self { memory, ahead: Vec::new(), released }
    }
}

impl<D: GuestAddressSpace<T: Send>> Bulk<D> for BulkQueue<D> {
    fn ahead(&mut self) -> &mut Vec<Chain<D>> {
        &mut self.ahead
    }

    fn fetch(&mut self) {
        self.memory.fetch(&self.ahead);
        self.ahead.reverse();
    }

    fn release(&mut self, chain: Released<D>) {
        self.released.push(chain);
    }

    fn flush(&mut self) {
        self.memory.release(&mut self.released);
        // In case it has left some.
        self.released.clear();
    }
}
