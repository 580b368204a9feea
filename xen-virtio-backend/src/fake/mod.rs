//! A toolstack, guests and their drivers without Xen, for tests of backends (feature `test-utils`).
//!
//! [`FakeToolstack`] runs a backend over the fakes of the `xen-*` crates: it creates and destroys guests, and adds and
//! removes devices ([`DeviceConfig`]) as libxl does, by nodes in a xenstore in memory. [`FakeDriver`] is the guest's
//! side of a device: it initialises it by accesses that trap, makes buffers available in a ring in the guest's memory,
//! and takes what was used. What it gives the device is mapped by the backend, or granted page by page ([`Sharing`]).
//! The fakes fail as Xen and Linux do: a buffer that is taken back while the backend still has its grant mapped ends
//! the test.
//!
//! # Example
//! A device whose requests are filled with one byte, and a guest that uses it, by either way to its memory:
//! ```
//! use std::os::fd::OwnedFd;
//!
//! use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};
//! use xen_virtio_backend::{
//!     Inline, InlineDevices,
//!     fake::{DeviceConfig, FakeToolstack, Sharing},
//!     node::DeviceType,
//! };
//!
//! struct Constant;
//!
//! impl VirtioDevice for Constant {
//!     fn device_type(&self) -> u32 {
//!         Self::DEVICE_TYPE.0
//!     }
//!     fn queue_max_sizes(&self) -> &[u16] {
//!         &[16]
//!     }
//! }
//!
//! impl Inline for Constant {
//!     const NAME: &'static str = "constant";
//!     const DEVICE_TYPE: DeviceType = DeviceType(4);
//!
//!     fn build(_: Vec<OwnedFd>) -> Self {
//!         Self
//!     }
//!     fn request<M: GuestAddressSpace>(&mut self, _: u16, chain: &Chain<M>) -> Option<u32> {
//!         Some(chain.copy_to(0, &[0x5a; 8]).unwrap_or(0) as u32)
//!     }
//! }
//!
//! for sharing in Sharing::ALL {
//!     let mut toolstack = FakeToolstack::new(InlineDevices::<Constant>::new);
//!     let guest = toolstack.create_guest(1);
//!     let device = DeviceConfig::generic(1, 0, Constant::DEVICE_TYPE).sharing(sharing);
//!     toolstack.serve(&device);
//!
//!     let mut driver = toolstack.driver(&device, 0);
//!     let buffer = driver.buffer(8);
//!     assert_eq!(driver.submit(&[buffer.writable()]), 8);
//!     assert_eq!(driver.get(buffer.guest), [0x5a; 8]);
//!     assert_eq!(driver.window().wait_interrupt(), 1);
//!     driver.release(buffer);
//!
//!     toolstack.close_device(&device);
//!     toolstack.settle();
//!     assert_eq!(toolstack.state(&device).as_deref(), Some("6"));
//!     toolstack.destroy_guest(1);
//!     toolstack.settle();
//!     assert_eq!(guest.foreign_memory().live_mappings(), 0);
//! }
//! ```

mod descriptor;
mod device;
mod driver;
mod guest_kernel;
mod operator;
mod pci_function;
pub mod reg;
mod shared_pages;
mod store;
mod toolstack;
mod wait;
mod watchdog;
mod window;
mod xen;

pub use crate::node::Sharing;
pub use descriptor::{INDIRECT, NEXT, WRITE, descriptor};
pub use device::DeviceConfig;
pub use driver::{FakeDriver, UsedElem};
pub use guest_kernel::GuestKernel;
pub use pci_function::PciFunction;
pub use shared_pages::SharedPages;
pub use toolstack::FakeToolstack;
pub use wait::{PATIENCE, until};
pub use watchdog::Watchdog;
pub use window::Window;
pub use xen::FakeXen;
