//! A virtio block device (virtio 1.2 §5.2): what the registers show of it, the requests of its
//! queue, and the disk image behind. Which hypervisor brings the register accesses, and how guest
//! memory is reached, is the caller's: this is the device of any
//! [transport](virtio_dev::Transport) over any [`vm_memory::GuestMemory`].
//!
//! [`BlockDevice`] is the control plane: features and configuration. A [`Worker`] is one queue's
//! data plane: it takes a bounded batch of requests, checks each by its header and lengths, has
//! an [`Engine`] carry it out, and answers in whatever order the engine finishes, with one
//! publication and at most one interrupt a batch. Data goes between image and guest memory in one
//! system call, without a copy in between. [`UringEngine`] has the kernel do many operations at
//! once; [`SyncEngine`] does each where it stands, and works everywhere. [`RawImage`] is a file or
//! block device, locked against a second user, and behind the feature `imago` there are
//! `ImagoImage`s, in qcow2 and VMDK; [`ImageFormat::open`] opens either.
//!
//! Served is all of virtio 1.2 §5.2 but zoned devices: reads, writes, flushes, the identifier, and
//! as far as the storage really has them discards, zeroes, secure erases and its lifetime; several
//! queues, a write cache that the driver switches, a capacity that changes. Nothing
//! here starts a thread or prints; images are all that is opened.
//!
//! # Example
//! The guest memory here is the one of vm-memory's feature `backend-mmap`, which the user of this
//! crate turns on (`vm-memory = { version = "0.18", features = ["backend-mmap"] }`); the image is a
//! file of the crate tempfile.
//!
//! A disk of 16 sectors, and a driver that reads the fourth:
//! ```
//! use std::sync::Arc;
//!
//! use virtio_blk_dev::{BlockConfig, BlockDevice, Image, RawImage, SyncEngine, Worker};
//! use virtio_blk_dev::virtio_dev::{LiveQueue, QueueConfig, VirtioDevice};
//! use virtio_mmio_dev::MmioTransport;
//! use virtio_blk_dev::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = tempfile::NamedTempFile::new()?;
//! std::fs::write(file.path(), [[0; 3 * 512].as_slice(), &[7; 13 * 512]].concat())?;
//!
//! // The device: an image, what the registers say of it, and what answers its queue.
//! let image = Arc::new(RawImage::open(file.path(), false)?);
//! let device = BlockDevice::new(image.capacity(), &BlockConfig::default())?;
//! let transport = MmioTransport::new(device, || println!("interrupt"))?;
//! let memory = &GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//!
//! // What `transport.queue(0)` gives once the driver has set the queue up.
//! let config = QueueConfig {
//!     index: 0,
//!     size: 4,
//!     size_max: 256,
//!     desc_table: 0x1000,
//!     avail_ring: 0x2000,
//!     used_ring: 0x3000,
//!     event_idx: false,
//!     indirect: false,
//!     next_avail: 0,
//!     next_used: 0,
//! };
//! let queue = LiveQueue::new(&config, &memory, memory, transport.interrupt(0))?;
//! let params = transport.device().params();
//! let mut worker = Worker::new(queue, SyncEngine::new(image), &params);
//!
//! // The driver: header, room for a sector and for the status, in three descriptors.
//! memory.write_obj([0_u32, 0], GuestAddress(0x4000))?; // VIRTIO_BLK_T_IN
//! memory.write_obj(3_u64, GuestAddress(0x4008))?; // sector 3
//! let (next, write) = (1_u16, 2_u16);
//! for (index, addr, len, flags) in [
//!     (0_u16, 0x4000_u64, 16_u32, next),
//!     (1, 0x5000, 512, next | write),
//!     (2, 0x4010, 1, write),
//! ] {
//!     let descriptor = GuestAddress(0x1000 + u64::from(index) * 16);
//!     memory.write_obj(addr, descriptor)?;
//!     memory.write_obj(len, GuestAddress(descriptor.0 + 8))?;
//!     memory.write_obj([flags, index + 1], GuestAddress(descriptor.0 + 12))?;
//! }
//! memory.write_obj(1_u16, GuestAddress(0x2002))?; // the available index
//!
//! // A kick.
//! assert_eq!(worker.run().processed, 1);
//! assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x5000))?, [7; 4]);
//! assert_eq!(memory.read_obj::<u8>(GuestAddress(0x4010))?, 0, "VIRTIO_BLK_S_OK");
//! assert_eq!(memory.read_obj::<[u32; 2]>(GuestAddress(0x3004))?, [0, 513], "head and length");
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//! The driver is the attacker: every byte of its memory may be anything and change at any time.
//! It gets a status for every mistake; malformed rings are the transport's matter.
//!
//! | the driver | what happens |
//! |---|---|
//! | asks beyond the end, with any sector and length | checked with overflow; `IOERR`, the image keeps its size |
//! | writes to a read-only disk | `IOERR` before the image is asked; the image is open for reading only |
//! | changes the header while it is read | it is copied once, then checked |
//! | changes data while it is written | what is stored is what was there at some time: its own harm |
//! | puts header, data or status outside its memory | `IOERR` before anything is moved; without a place for the status, returned with a length of 0 |
//! | sends no header, part of one, an unknown type | `IOERR`, `IOERR`, `UNSUPP` |
//! | leaves no room for a status | returned with a length of 0, not carried out |
//! | splits a request into buffers as it likes | framing means nothing: streams of bytes |
//! | adds requests without end | each [`Worker::run`] takes a bounded number |
//! | wants memory used up | buffers of a queue's size in flight, kept for reuse; nothing else grows |
//! | wants logs filled | nothing is printed; [`Worker::take_last_error`] keeps one error, counters the rest |
//! | writes another format's header into its disk | formats are stated, never probed |
//! | resets in mid-I/O | [`Worker::drain`] waits for the kernel before memory is unmapped |
//!
//! The host is trusted, but fails: each of its errors is `IOERR` for one request, never for the
//! device, but for a failed flush, after which none succeeds (see [`Durability`]). An image that is
//! truncated while in use gives `IOERR` on what is missing, a full file system on what needs room.
//!
//! Guest memory is written through host addresses, so dirty bitmaps of `vm_memory` don't see the
//! data of reads, and its `xen` feature, whose addresses are short-lived, must be off.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod aligned_buffer;
mod buffers;
mod clock;
mod device;
mod engine;
#[cfg(feature = "test-utils")]
pub mod fake;
mod image;
mod request;
mod sector;
mod stats;
mod sync;
mod worker;

pub use buffers::{Sink, Source};
pub use device::{
    BlockConfig, BlockDevice, ConfigError, Durability, Features, Limits, Params, RangeLimits,
    SERIAL_LEN, Serial, ZeroesLimits,
};
pub use engine::{
    BouncePool, Completion, Engine, EngineFault, InOrder, Io, Operation, RingPool, StillInUse,
    SyncEngine, UringConfig, UringEngine, UringError,
};
#[cfg(feature = "imago")]
pub use image::ImagoImage;
pub use image::{
    Alignment, Commands, Flusher, Image, ImageFacts, ImageFiles, ImageFormat, ImageWarning,
    Lifetime, OpenError, PartsError, RangeCall, RawImage, RawOptions, Topology, TopologyError,
    UnknownFormat,
};
pub use request::RequestKind;
pub use sector::SECTOR_SIZE;
pub use stats::{Counters, HostError, Latency, OpStats, Stats};
pub use worker::{
    Canceller, InlineLimit, Pause, Poller, Progress, QueueWaiter, Rate, RateLimiter, RateLimits,
    ServeError, Worker,
};

pub use {virtio_dev, vm_memory};
