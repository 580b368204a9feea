//! The work of [`ring`](crate::ring::ring) done with `virtio-queue`, as its users do it but for its
//! `Reader` and `Writer`: what the workspace's own queue is compared with.

use std::hint::black_box;

use virtio_queue::{DescriptorChain, Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryMmap};

use crate::count::count;
use crate::device::transport;
use crate::guest::{Guest, Shape};
use crate::memory::{Plain, RAM};

type Memory = &'static GuestMemoryMmap<()>;

pub(crate) fn ring(shape: Shape, depth: u16) {
    let Plain { memory, all } = Plain::new();
    let mut guest = Guest::new(all, RAM, shape);
    let mut transport = transport(false);
    let mut queue = Queue::try_from(&guest.start(&mut transport)).expect("a queue");
    let interrupt = transport.interrupt(0);
    count(depth, || {
        guest.round(depth, || {
            queue.disable_notification(memory).expect("a ring");
            loop {
                while let Some(chain) = queue.pop_descriptor_chain(memory) {
                    let head = chain.head_index();
                    let len = answer(memory, chain).expect("a request");
                    queue.add_used(memory, head, len).expect("a ring");
                }
                if !queue.enable_notification(memory).expect("a ring") {
                    break;
                }
            }
            if queue.needs_notification(memory).expect("a ring") {
                interrupt.used_buffer();
            }
        });
    });
}

/// Reads the header, looks up the data, writes the status; gives the bytes written.
#[inline]
fn answer(memory: Memory, mut chain: DescriptorChain<Memory>) -> Option<u32> {
    let header: [u64; 2] = memory.read_obj(chain.next()?.addr()).ok()?;
    let data = chain.next()?;
    let slice = memory.get_slice(data.addr(), data.len() as usize).ok()?;
    black_box((header, slice.ptr_guard_mut().as_ptr()));
    memory.write_obj(0_u8, chain.next()?.addr()).ok()?;
    data.len().checked_add(1)
}
