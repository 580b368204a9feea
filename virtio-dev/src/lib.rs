//! The device side of virtio (virtio 1.2), whatever the transport: status machine, features, queue
//! set-up, live queues and interrupts. No I/O, no thread, no unsafe code, and nothing here knows which
//! hypervisor or which registers there are: `virtio-mmio-dev` and `virtio-pci-dev` decode those.
//!
//! A [`VirtioDevice`] is what a device is: its features and its configuration space. The
//! [`ControlPlane`] has it behind the registers that transports share, and has [`Queues`] start and
//! stop the queues as the driver asks for it. Each ready queue becomes
//! a [`LiveQueue`], owned by the one worker that serves it: [`pop`](LiveQueue::pop) a [`Chain`], do
//! the work, [`complete`](LiveQueue::complete) it in any order, [`publish`](LiveQueue::publish) a
//! batch with one index store and at most one [`Interrupt`]. [`InlineDevice`] is all of it for a device
//! that does its work at once. Guest memory is whatever implements
//! [`vm_memory::GuestMemory`]; addresses are opaque, so those of an IOMMU or of Xen grants do.
//!
//! # Example
//! The guest memory here is the one of vm-memory's feature `backend-mmap`, which the user of this
//! crate turns on (`vm-memory = { version = "0.18", features = ["backend-mmap"] }`).
//!
//! A device that answers every request with zeroes, and a driver that asks once. What the driver
//! writes comes through a transport, which makes these calls of it:
//! ```
//! use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//! use virtio_dev::{
//!     CommonField, ControlPlane, Interrupt, LiveQueue, Notifications, QueueConfig, Queues, Stop,
//!     VirtioDevice, WriteOutcome, process_queue,
//! };
//!
//! struct Zeroes;
//!
//! impl VirtioDevice for Zeroes {
//!     fn device_type(&self) -> u32 { 4 }
//!     fn queue_max_sizes(&self) -> &[u16] { &[8] }
//! }
//!
//! type Memory = GuestMemoryMmap<()>;
//!
//! /// Its one queue, served where the registers are answered.
//! struct ZeroesQueue<'a> {
//!     memory: &'a Memory,
//!     live: Option<LiveQueue<&'a Memory, &'a Memory>>,
//! }
//!
//! impl Queues<Zeroes> for ZeroesQueue<'_> {
//!     fn start(&mut self, _device: &Zeroes, config: &QueueConfig, interrupt: Interrupt) {
//!         // Failing, it has set DEVICE_NEEDS_RESET.
//!         self.live = LiveQueue::new(config, &self.memory, self.memory, interrupt).ok();
//!         self.notify(config.index);
//!     }
//!     fn notify(&mut self, _queue: u16) {
//!         if let Some(queue) = &mut self.live {
//!             process_queue(queue, |chain| chain.copy_to(0, &[0; 4]).map_or(0, |_| 4));
//!         }
//!     }
//!     fn stop(&mut self, _queue: u16) -> Stop {
//!         self.live = None;
//!         Stop::Done
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let line = Notifications::Line(Box::new(|| println!("interrupt")));
//! let mut control = ControlPlane::builder(Zeroes).build(line)?;
//! let memory = &Memory::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut queue = ZeroesQueue { memory, live: None };
//!
//! // The driver initialises the device and its queue …
//! for (field, value) in [
//!     (CommonField::Status, 1),
//!     (CommonField::Status, 3),
//!     (CommonField::DriverFeaturesSel, 1),
//!     (CommonField::DriverFeatures, 1), // VERSION_1
//!     (CommonField::Status, 11),
//!     (CommonField::QueueSize, 8),
//!     (CommonField::QueueDescLow, 0x1000),
//!     (CommonField::QueueDriverLow, 0x2000),
//!     (CommonField::QueueDeviceLow, 0x3000),
//!     (CommonField::QueueReady, 1),
//!     (CommonField::Status, 15),
//! ] {
//!     assert_eq!(control.write(field, value, &mut queue), WriteOutcome::Done);
//! }
//!
//! // … makes a writable buffer of 4 bytes at 0x4000 available, and notifies.
//! memory.write_slice(&[0xff; 4], GuestAddress(0x4000))?;
//! memory.write_obj(0x4000_u64, GuestAddress(0x1000))?;
//! memory.write_obj(4_u32, GuestAddress(0x1008))?;
//! memory.write_obj(2_u16, GuestAddress(0x100c))?;
//! memory.write_obj(1_u16, GuestAddress(0x2002))?;
//! assert_eq!(control.notify(0), WriteOutcome::Notify(0));
//! // The access is answered here; then:
//! queue.notify(0);
//!
//! assert_eq!(memory.read_obj::<u32>(GuestAddress(0x4000))?, 0);
//! assert_eq!(memory.read_obj::<u16>(GuestAddress(0x3002))?, 1, "the used index");
//! assert_eq!(control.interrupt_status(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//! The driver is the attacker: it writes any register at any time, from several vCPUs, and changes its
//! memory while the device reads it.
//!
//! | the driver | what happens |
//! |---|---|
//! | selects a queue, page or region that is not there | reads as absent (size 0, bits 0, all ones) |
//! | clears status bits, takes features not offered | the status keeps its value |
//! | leaves out a step, or comes to it late | as far as that concerns the driver alone, it is served |
//! | puts rings outside its memory | [`LiveQueue::new`] fails, `DEVICE_NEEDS_RESET` is set |
//! | breaks a ring: loops, bad indices, jumps, nested tables | [`RingFault`], `DEVICE_NEEDS_RESET`; bounded work, no panic |
//! | changes a descriptor while it is read | each is copied once, then checked |
//! | puts a buffer outside its memory | the copy fails; the request is the device's to refuse |
//! | adds chains without end | [`process_queue`] comes back after a queue's worth |
//! | wants memory used up | at most `size` chains of `size` buffers of 16 bytes, a queue: its largest size is the device's to choose |
//! | resets while requests are in flight | the status stays up until the queues have stopped; an old [`Interrupt`] does nothing after |
#![forbid(unsafe_code)]
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

mod control;
mod device;
mod error;
#[cfg(feature = "test-utils")]
pub mod fake;
pub mod feature;
mod halves;
mod inline;
mod interrupt;
mod notifications;
mod process;
mod queue;
mod queue_config;
mod queues;
#[cfg(feature = "virtio-queue")]
mod rust_vmm;
mod state;
mod status;
mod sync;
mod transport;
mod write_outcome;

pub use control::{CommonField, ControlPlane, ControlPlaneBuilder};
pub use device::{ConfigWrite, SharedMemory, VENDOR_ID, VirtioDevice};
pub use error::{Error, QueueError};
pub use inline::InlineDevice;
pub use interrupt::Interrupt;
pub use notifications::{Delivery, IrqLine, Messages, Notifications};
pub use process::{Progress, process_queue, process_queue_while};
pub use queue::{
    Batch, Buffer, BulkMemory, Chain, LiveQueue, PlainSlice, Positions, QueueEvents, Released,
    RingFault,
};
pub use queue_config::QueueConfig;
pub use queues::{Queues, Stop};
pub use state::{ControlState, QueueState};
pub use status::Status;
pub use transport::Transport;
pub use write_outcome::{Ignored, PendingWrite, WriteOutcome};

#[cfg(loom)]
pub use sync::cells;
pub use vm_memory;
