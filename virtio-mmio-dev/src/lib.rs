//! The device side of virtio-mmio (virtio 1.2 §4.2, version 2): the registers of a device, for whoever
//! traps a guest's accesses. No I/O, no thread, no unsafe code, and nothing here knows which hypervisor
//! it is.
//!
//! [`MmioTransport`] answers register accesses at once, for the [`ControlPlane`] behind it, and so has
//! [`Queues`] start and stop the queues as the driver asks for it. All that is no register, from the
//! status machine to the live queues, is `virtio-dev`'s: see [`virtio_dev`].
//!
//! # Example
//! The guest memory here is the one of vm-memory's feature `backend-mmap`, which the user of this
//! crate turns on (`vm-memory = { version = "0.18", features = ["backend-mmap"] }`).
//!
//! A device that answers every request with zeroes, and a driver that asks once:
//! ```
//! use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//! use virtio_dev::{
//!     Interrupt, LiveQueue, QueueConfig, Queues, Stop, VirtioDevice, WriteOutcome, process_queue,
//! };
//! use virtio_mmio_dev::{MmioTransport, Register};
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
//! let mut transport = MmioTransport::new(Zeroes, || println!("interrupt"))?;
//! let memory = &Memory::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut queue = ZeroesQueue { memory, live: None };
//!
//! // The driver's accesses, as traps bring them: initialise the device and its queue …
//! let mut write = |register: Register, value: u32, queue: &mut ZeroesQueue<'_>| {
//!     transport.write(register.offset(), &value.to_le_bytes(), queue)
//! };
//! for (register, value) in [
//!     (Register::Status, 1),
//!     (Register::Status, 3),
//!     (Register::DriverFeaturesSel, 1),
//!     (Register::DriverFeatures, 1), // VERSION_1
//!     (Register::Status, 11),
//!     (Register::QueueSize, 8),
//!     (Register::QueueDescLow, 0x1000),
//!     (Register::QueueDriverLow, 0x2000),
//!     (Register::QueueDeviceLow, 0x3000),
//!     (Register::QueueReady, 1),
//!     (Register::Status, 15),
//! ] {
//!     assert_eq!(write(register, value, &mut queue), WriteOutcome::Done);
//! }
//!
//! // … make a writable buffer of 4 bytes at 0x4000 available, and notify.
//! memory.write_slice(&[0xff; 4], GuestAddress(0x4000))?;
//! memory.write_obj(0x4000_u64, GuestAddress(0x1000))?;
//! memory.write_obj(4_u32, GuestAddress(0x1008))?;
//! memory.write_obj(2_u16, GuestAddress(0x100c))?;
//! memory.write_obj(1_u16, GuestAddress(0x2002))?;
//! assert_eq!(write(Register::QueueNotify, 0, &mut queue), WriteOutcome::Notify(0));
//! // The trap is answered here; then:
//! queue.notify(0);
//!
//! assert_eq!(memory.read_obj::<u32>(GuestAddress(0x4000))?, 0);
//! assert_eq!(memory.read_obj::<u16>(GuestAddress(0x3002))?, 1, "the used index");
//! let mut interrupt_status = [0; 4];
//! transport.read(Register::InterruptStatus.offset(), &mut interrupt_status);
//! assert_eq!(interrupt_status, [1, 0, 0, 0]);
//! # Ok(())
//! # }
//! ```
//! [`InlineDevice`] is such a device made of these parts.
//!
//! # Threat model
//! That of [`virtio_dev`](virtio_dev#threat-model), and:
//!
//! | the driver | what happens |
//! |---|---|
//! | accesses beyond, between or across registers | reads give 0, writes are ignored |
//! | leaves out a step, or comes to it late | see `tests/drivers.rs` |
//!
//! [`ControlPlane`]: virtio_dev::ControlPlane
//! [`InlineDevice`]: virtio_dev::InlineDevice
//! [`Queues`]: virtio_dev::Queues
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

mod register;
mod transport;

pub use register::{Access, Register};
pub use transport::{MmioTransport, MmioTransportBuilder, WINDOW_SIZE, read_placeholder};
pub use virtio_dev;
