//! Event channels in memory, for tests of code that uses this crate.
//!
//! [`FakeHub`] is the hypervisor and the guests, [`FakeEvtchn`] a descriptor opened on it. They fail as
//! Linux `drivers/xen/evtchn.c` and Xen `common/event_channel.c` do, with the same errno. Local ports and
//! remote ports are numbered from different bases, so that code that mixes them up fails.

mod call;
mod handle;
mod hub;
mod shared;
mod state;

pub use call::Call;
pub use handle::FakeEvtchn;
pub use hub::FakeHub;
