//! A guest without Xen, for tests of code that uses this crate.
//!
//! [`FakeDomain`] puts together the fakes of event channels and of memory with servers, ranges, interrupts and vCPUs
//! that trap. What a backend is handed ([`device_model`](FakeDomain::device_model) and so on) fails as
//! Linux and Xen do, with the same errno; [`FakeVcpu`] is the guest's side.

mod builder;
mod call;
mod domain;
mod errno;
mod fault;
mod ioreq;
mod irq;
mod machine;
mod model;
mod ranges;
mod state;
mod vcpu;

pub use builder::Builder;
pub use call::Call;
pub use domain::FakeDomain;
pub use fault::Fault;
pub use ioreq::FakeIoreq;
pub use model::FakeDeviceModel;
pub use vcpu::{Access, FakeVcpu};
