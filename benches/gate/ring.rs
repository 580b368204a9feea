//! The ring alone, through [`LiveQueue::batch`]: what any device does for a request besides its
//! work.

use std::hint::black_box;

use virtio_dev::{Batch, Chain, LiveQueue};
use vm_memory::{GuestMemoryMmap, VolatileMemory as _};

use crate::count::count;
use crate::device::transport;
use crate::guest::{Guest, Shape};
use crate::memory::{Plain, RAM};

type Memory = &'static GuestMemoryMmap<()>;

pub(crate) fn ring(shape: Shape, depth: u16) {
    let Plain { memory, all } = Plain::new();
    let mut guest = Guest::new(all, RAM, shape);
    let mut transport = transport(false);
    let config = guest.start(&mut transport);
    let mut queue =
        LiveQueue::new(&config, &memory, memory, transport.interrupt(0)).expect("a live queue");
    count(depth, || {
        guest.round(depth, || {
            queue.batch(|batch| {
                batch.disable_notification();
                loop {
                    while let Some(chain) = batch.pop() {
                        let len = answer(batch, &chain).expect("a request");
                        batch.complete(chain, len);
                    }
                    if !batch.enable_notification() {
                        break;
                    }
                }
                batch.publish();
            });
        });
    });
}

/// Reads the header, looks up the data, writes the status; gives the bytes written.
#[inline]
fn answer(
    batch: &mut Batch<'_, GuestMemoryMmap<()>, Memory>,
    chain: &Chain<Memory>,
) -> Option<u32> {
    let [header] = chain.readable() else { return None };
    let [data, status] = chain.writable() else { return None };
    let header = batch.plain_slice(chain, header.addr, 16)?.get_ref::<[u64; 2]>(0).ok()?.load();
    let data_slice = batch.plain_slice(chain, data.addr, data.len as usize)?;
    black_box((header, data_slice.ptr_guard_mut().as_ptr()));
    batch.plain_slice(chain, status.addr, 1)?.get_ref::<u8>(0).ok()?.store(0);
    data.len.checked_add(1)
}
