//! Grants of many requests, copied in one call.

use std::sync::atomic::Ordering;

use virtio_dev::{BulkMemory, Chain, Released, vm_memory::Bytes};
use xen_foreignmem::{ForeignMemory, GrantTable, Requests};

/// Requests whose memory is granted, for [`LiveQueue::with_bulk`](virtio_dev::LiveQueue::with_bulk): one call
/// copies what many of them read, and one what they have written.
#[derive(Debug)]
pub struct GrantCopies<F: ForeignMemory, G: GrantTable>(Requests<F, G>);

impl<F: ForeignMemory, G: GrantTable> GrantCopies<F, G> {
    /// For the queue whose requests' memory this is.
    pub fn new(requests: &Requests<F, G>) -> Box<Self> {
        Box::new(Self(requests.clone()))
    }
}

impl<F: ForeignMemory, G: GrantTable> BulkMemory<Requests<F, G>> for GrantCopies<F, G> {
    fn fetch(&mut self, chains: &[Chain<Requests<F, G>>]) {
        self.0.fetch(chains.iter().flat_map(|chain| {
            let buffers = chain.readable().iter();
            buffers.map(|buffer| (chain.memory(), buffer.addr, buffer.len as usize))
        }));
    }

    fn release(&mut self, chains: &mut Vec<Released<Requests<F, G>>>) {
        self.0.write_back(
            chains,
            |chain| &mut chain.guard,
            |chain| {
                if let Some((addr, byte)) = chain.if_lost {
                    // If that can't be told either, it is the guest that has granted too little.
                    let _ = chain.guard.store(byte, addr, Ordering::Relaxed);
                }
            },
        );
        chains.clear();
    }
}
