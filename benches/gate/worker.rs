//! The whole of a block device's data plane: ring, request, engine.

use std::fs::File;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use virtio_blk_dev::{
    Completion, Engine, Io, Operation, RawImage, SyncEngine, UringConfig, UringEngine, Worker,
};
use virtio_dev::LiveQueue;
use vm_memory::{GuestAddressSpace, VolatileSlice};

use crate::count::count;
use crate::device::{CAPACITY, transport};
use crate::guest::{Guest, Shape};
use crate::memory::{Domain, Plain, RAM};

/// Completes everything at once, having looked at its memory.
struct Null;

impl Engine for Null {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        match io.operation() {
            Operation::Read(memory) => _ = std::hint::black_box(memory.iovecs()),
            Operation::Write(memory) => _ = std::hint::black_box(memory.iovecs()),
            _ => {}
        }
        Some(Completion { io, result: Ok(()) })
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}

/// Without I/O.
pub(crate) fn null(shape: Shape, depth: u16) {
    plain(shape, depth, Null);
}

/// Without I/O, for a Xen guest that leaves its memory to be mapped.
pub(crate) fn foreign(shape: Shape, depth: u16) {
    let Domain { memory, all, base } = Domain::foreign();
    serve((all, base), (&memory.rings(), memory.requests()), false, (shape, depth), Null);
}

/// Without I/O, for a Xen guest that grants its memory.
pub(crate) fn granted(shape: Shape, depth: u16) {
    let Domain { memory, all, base } = Domain::granted();
    serve((all, base), (&memory.rings(), memory.requests()), true, (shape, depth), Null);
}

/// By system calls, on a file in memory.
pub(crate) fn sync(shape: Shape, depth: u16) {
    plain(shape, depth, SyncEngine::new(image()));
}

/// Through io_uring where the engine thinks that it pays, on a file in memory.
pub(crate) fn uring(shape: Shape, depth: u16) {
    with_uring(shape, depth, true);
}

/// Through io_uring whatever it costs, on a file in memory. How much that is depends on how fast
/// the kernel is.
pub(crate) fn uring_only(shape: Shape, depth: u16) {
    with_uring(shape, depth, false);
}

fn with_uring(shape: Shape, depth: u16, inline: bool) {
    if let Err(error) = UringEngine::check() {
        // Containers often forbid it.
        println!("skipped {error}");
        return;
    }
    let config = UringConfig { inline, ..UringConfig::default() };
    plain(shape, depth, UringEngine::with_config(image(), &config).expect("io_uring"));
}

fn plain(shape: Shape, depth: u16, engine: impl Engine) {
    let Plain { memory, all } = Plain::new();
    serve((all, RAM), (&memory, memory), false, (shape, depth), engine);
}

fn serve<R: GuestAddressSpace, D: GuestAddressSpace>(
    (all, base): (VolatileSlice<'static>, u64),
    (rings, requests): (&R, D),
    granted: bool,
    (shape, depth): (Shape, u16),
    engine: impl Engine,
) {
    let mut guest = Guest::new(all, base, shape);
    let mut transport = transport(granted);
    let config = guest.start(&mut transport);
    let queue =
        LiveQueue::new(&config, rings, requests, transport.interrupt(0)).expect("a live queue");
    let mut worker = Worker::new(queue, engine, &transport.device().params());
    count(depth, || {
        guest.round(depth, || {
            if worker.run().processed == 0
                && let Some(fd) = worker.as_fd()
            {
                poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).expect("a wait");
            }
        });
    });
}

/// A file in memory, its blocks there.
fn image() -> Arc<RawImage> {
    let file = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("a file in memory"));
    file.write_all_at(&vec![0x5a; CAPACITY as usize], 0).expect("room for the image");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Arc::new(RawImage::open(path, false).expect("the image"))
}
