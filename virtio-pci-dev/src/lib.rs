//! The device side of virtio-pci (virtio 1.2 §4.1): configuration space, registers and MSI-X of a
//! device, for whoever traps a guest's accesses. No I/O, no thread, no unsafe code, and nothing here
//! knows which hypervisor, or which host bridge, it is.
//!
//! [`PciTransport`] is one function: it answers accesses to its configuration space and to its BAR at
//! once, for the [`ControlPlane`] behind it, and so has [`Queues`] start and stop the queues as the
//! driver asks for it. All that is no register, from the status machine to the live queues, is
//! `virtio-dev`'s: see [`virtio_dev`]. The function has MSI-X, with a vector for each queue and one for
//! configuration changes, and no interrupt pin; [`MsiLines`] says what a message does.
//!
//! # Example
//! The guest memory here is the one of vm-memory's feature `backend-mmap`, which the user of this
//! crate turns on (`vm-memory = { version = "0.18", features = ["backend-mmap"] }`).
//!
//! A device that answers every request with zeroes, and a driver that asks once:
//! ```
//! use std::sync::Arc;
//!
//! use virtio_dev::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//! use virtio_dev::{InlineDevice, IrqLine, VirtioDevice};
//! use virtio_pci_dev::{PciAddress::{Bar, Config}, PciTransport};
//!
//! struct Zeroes;
//!
//! impl VirtioDevice for Zeroes {
//!     fn device_type(&self) -> u32 { 4 }
//!     fn queue_max_sizes(&self) -> &[u16] { &[8] }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A message is a write to the frame of the interrupt controller that the guest has.
//! let lines = |address, spi| {
//!     let line = move || println!("interrupt {spi}");
//!     (address == 0x0220_0040).then(|| Arc::new(line) as Arc<dyn IrqLine>)
//! };
//! let transport = PciTransport::new(Zeroes, lines)?;
//! let memory = &GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0x10000)])?;
//! let mut device = InlineDevice::new(transport, memory, memory);
//!
//! // The driver's accesses, as traps bring them: find the device, place its BAR, let it write …
//! let mut id = [0; 4];
//! device.read(Config(0), &mut id);
//! assert_eq!(id, [0xf4, 0x1a, 0x44, 0x10]);
//! device.write(Config(0x10), &0x2300_0000_u32.to_le_bytes());
//! device.write(Config(0x04), &6_u16.to_le_bytes()); // memory space, bus master
//! assert_eq!(device.transport().bar(), Some(0x2300_0000..0x2300_4000));
//!
//! // … let vector 1 write 40 to 0x02200040, in the MSI-X table, and enable MSI-X …
//! for (at, value) in [(0, 0x0220_0040_u32), (4, 0), (8, 40), (12, 0)] {
//!     device.write(Bar(0x2010 + at), &value.to_le_bytes());
//! }
//! device.write(Config(0x42), &0x8000_u16.to_le_bytes());
//!
//! // … initialise the device and its queue, in the common configuration …
//! let mut write = |at, value: u32, width: usize| device.write(Bar(at), &value.to_le_bytes()[..width]);
//! for (at, value, width) in [
//!     (0x14, 1, 1), // device_status
//!     (0x14, 3, 1),
//!     (0x08, 1, 4), // driver_feature_select
//!     (0x0c, 1, 4), // driver_feature: VERSION_1
//!     (0x14, 11, 1),
//!     (0x18, 8, 2), // queue_size
//!     (0x1a, 1, 2), // queue_msix_vector
//!     (0x20, 0x1000, 4), // queue_desc
//!     (0x28, 0x2000, 4), // queue_driver
//!     (0x30, 0x3000, 4), // queue_device
//!     (0x1c, 1, 2), // queue_enable
//!     (0x14, 15, 1),
//! ] {
//!     assert_eq!(write(at, value, width), None, "taken");
//! }
//!
//! // … make a writable buffer of 4 bytes at 0x4000 available, and notify.
//! memory.write_slice(&[0xff; 4], GuestAddress(0x4000))?;
//! memory.write_obj(0x4000_u64, GuestAddress(0x1000))?;
//! memory.write_obj(4_u32, GuestAddress(0x1008))?;
//! memory.write_obj(2_u16, GuestAddress(0x100c))?;
//! memory.write_obj(1_u16, GuestAddress(0x2002))?;
//! device.write(Bar(0x1000), &[0, 0]);
//! // When the trap is answered; this prints "interrupt 40":
//! device.process(|_, _, chain| Some(chain.copy_to(0, &[0; 4]).map_or(0, |_| 4)));
//!
//! assert_eq!(memory.read_obj::<u32>(GuestAddress(0x4000))?, 0);
//! assert_eq!(memory.read_obj::<u16>(GuestAddress(0x3002))?, 1, "the used index");
//! # Ok(())
//! # }
//! ```
//!
//! # Resets
//! A driver of virtio-pci waits until `device_status` reads 0, see
//! [`PciTransport::is_pending`]: a write that comes to
//! [`Pending`](virtio_dev::WriteOutcome::Pending) may be answered at once, or when the queues have
//! stopped. From the write on no message is sent: events have no vector until the driver assigns them
//! again, as virtio 1.2 §2.4.1 asks for silence.
//!
//! # Messages
//! An event whose vector is masked, by its entry, by the function mask or as the function is no bus
//! master, sets the vector's pending bit, and the message is sent when nothing of that holds any more.
//! None is lost, and none is sent after the write that masked it was answered. A message whose address
//! [`MsiLines`] doesn't know is lost.
//!
//! # Threat model
//! That of [`virtio_dev`](virtio_dev#threat-model), and:
//!
//! | the driver | what happens |
//! |---|---|
//! | accesses beyond, between or across registers, or in other widths | reads give 0, writes are ignored |
//! | writes what is read-only in the configuration space | it keeps its value |
//! | places the BAR over something else | [`PciTransport::bar`] says where it is; the bus decides who answers |
//! | sets the window of `VIRTIO_PCI_CAP_PCI_CFG` to something else than its BAR | reads give 0, writes are ignored |
//! | assigns a vector that is not there | the event has none, and the field reads so |
//! | gives messages addresses and data of its choice | [`MsiLines`] is asked, once for each pair that is written |
//! | masks and unmasks without end | each unmask sends a vector's message at most once, and only if an event came before |
//! | wants memory used up | the table has at most 2048 vectors, the BAR at most 1 MiB |
//!
//! Not here: transitional devices, the interrupt pin, shared memory regions (they would need a BAR),
//! PCI Express capabilities, power management.
//!
//! [`ControlPlane`]: virtio_dev::ControlPlane
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

mod bytes;
mod class;
mod common_config;
mod config_space;
mod error;
mod layout;
mod msix;
mod state;
mod sync;
mod transport;

pub use error::Error;
pub use msix::{MsiLines, VectorState};
pub use state::PciState;
pub use transport::{CONFIG_SPACE_SIZE, PciAddress, PciTransport, PciTransportBuilder};
pub use virtio_dev;
