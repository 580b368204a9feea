//! The calls that can be made to fail.

/// A call of [`EventChannel`](crate::EventChannel) that [`FakeHub::fail_next`](super::FakeHub::fail_next) can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`bind_interdomain`](crate::EventChannel::bind_interdomain).
    Bind,
    /// [`bind_loopback`](crate::EventChannel::bind_loopback).
    Loopback,
    /// [`unbind`](crate::EventChannel::unbind).
    Unbind,
    /// [`notify`](crate::EventChannel::notify).
    Notify,
    /// [`pending`](crate::EventChannel::pending), and [`wait`](crate::EventChannel::wait).
    Pending,
    /// [`unmask`](crate::EventChannel::unmask).
    Unmask,
    /// [`reset`](crate::EventChannel::reset).
    Reset,
    /// [`restrict`](crate::EventChannel::restrict).
    Restrict,
}
