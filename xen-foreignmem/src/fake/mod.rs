//! A guest's memory and grants without Xen, for tests of code that uses this crate.
//!
//! [`FakeRam`] is the guest's side: its RAM in banks, of real shared pages, so that a mapping of
//! them aliases what the guest sees. [`FakeForeignMemory`] and [`FakeGrantTable`] stand for the two
//! kernel devices: they refuse what the kernel and Xen refuse, with the same errno, count what is
//! mapped, and fail on demand.

pub use faults::Faults;
pub use foreign::FakeForeignMemory;
pub use grant::{Busy, FakeGrantTable};
pub use pages::FakePages;
pub use ram::FakeRam;

mod faults;
mod foreign;
mod grant;
mod pages;
mod ram;
