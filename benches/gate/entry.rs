//! What is counted.

use virtio_mmio_dev::Register;

use crate::guest::{Kind, Shape};
use crate::{mmio, pci, ring, virtio_queue, worker};

/// One piece of work.
pub(crate) struct Entry {
    pub(crate) name: String,
    /// It is ours, and the same each time, so that a rise is a regression.
    pub(crate) gated: bool,
    pub(crate) run: Box<dyn Fn()>,
}

const READ: Shape = Shape::new(Kind::Read, 1);
const INDIRECT: Shape = Shape { indirect: true, ..READ };
const WRITE: Shape = Shape::new(Kind::Write, 1);
/// 64 KiB in 16 pages, as a guest's page cache has them.
const READ_64K: Shape = Shape::new(Kind::Read, 16);
const WRITE_64K: Shape = Shape::new(Kind::Write, 16);
const FLUSH: Shape = Shape::new(Kind::Flush, 0);
const DISCARD: Shape = Shape::new(Kind::Discard, 1);

/// Work on requests of a shape, so many at once.
type Work = fn(Shape, u16);

const REQUESTS: [(&str, Work, Shape); 20] = [
    ("ring/direct", ring::ring, READ),
    ("ring/indirect", ring::ring, INDIRECT),
    ("virtio-queue/direct", virtio_queue::ring, READ),
    ("virtio-queue/indirect", virtio_queue::ring, INDIRECT),
    ("worker/read_4k", worker::null, READ),
    ("worker/write_4k", worker::null, WRITE),
    ("worker/read_64k", worker::null, READ_64K),
    ("worker/write_64k", worker::null, WRITE_64K),
    ("worker/flush", worker::null, FLUSH),
    ("worker/discard", worker::null, DISCARD),
    ("sync/read_4k", worker::sync, READ),
    ("sync/write_4k", worker::sync, WRITE),
    ("uring/read_4k", worker::uring, READ),
    ("uring/write_4k", worker::uring, WRITE),
    ("uring_only/read_4k", worker::uring_only, READ),
    ("uring_only/write_4k", worker::uring_only, WRITE),
    ("xen_foreign/read_4k", worker::foreign, READ),
    ("xen_foreign/write_4k", worker::foreign, WRITE),
    ("xen_grants/read_4k", worker::granted, READ),
    ("xen_grants/write_4k", worker::granted, WRITE),
];

/// The peer, and what depends on the kernel's speed.
const NOT_GATED: [&str; 2] = ["virtio-queue/", "uring_only/"];

const ACCESSES: [(&str, Register); 3] = [
    ("mmio/read_interrupt_status", Register::InterruptStatus),
    ("mmio/write_queue_notify", Register::QueueNotify),
    ("mmio/write_interrupt_ack", Register::InterruptAck),
];

const PCI: [(&str, fn()); 2] =
    [("pci/write_queue_notify", pci::notify), ("pci/used_buffer_message", pci::message)];

/// Everything, in the order it is told.
pub(crate) fn all() -> Vec<Entry> {
    let requests = REQUESTS.iter().flat_map(|&(name, work, shape)| {
        [1, 32].map(|depth| Entry {
            name: format!("{name}/qd{depth}"),
            gated: !NOT_GATED.iter().any(|prefix| name.starts_with(prefix)),
            run: Box::new(move || work(shape, depth)),
        })
    });
    let accesses = ACCESSES.iter().map(|&(name, register)| Entry {
        name: name.to_owned(),
        gated: true,
        run: Box::new(move || mmio::access(register)),
    });
    let pci = PCI.iter().map(|&(name, work)| Entry {
        name: name.to_owned(),
        gated: true,
        run: Box::new(work),
    });
    requests.chain(accesses).chain(pci).collect()
}
