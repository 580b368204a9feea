//! Event channels in memory, for tests of code that uses this crate.
//!
//! [`FakeHub`] is the hypervisor and the guests, [`FakeEvtchn`] a descriptor opened on it. They fail as
//! Linux `drivers/xen/evtchn.c` and Xen `common/event_channel.c` do, with the same errno. Local ports and
//! remote ports are numbered from different bases, so that code that mixes them up fails.

mod handle;
mod hub;
mod state;

pub use handle::FakeEvtchn;
pub use hub::FakeHub;

/// A call of [`EventChannel`](crate::EventChannel) that [`FakeHub::fail_next`] can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`bind_interdomain`](crate::EventChannel::bind_interdomain).
    Bind,
    /// [`unbind`](crate::EventChannel::unbind).
    Unbind,
    /// [`notify`](crate::EventChannel::notify).
    Notify,
    /// [`pending`](crate::EventChannel::pending).
    Pending,
    /// [`unmask`](crate::EventChannel::unmask).
    Unmask,
    /// [`reset`](crate::EventChannel::reset).
    Reset,
    /// [`restrict`](crate::EventChannel::restrict).
    Restrict,
}
