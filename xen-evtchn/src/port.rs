//! One bound port, owned.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::{DomId, Error, EventChannel};

/// A local port bound to a port of another domain; dropping it unbinds it, once.
pub struct Port<E: EventChannel> {
    channel: Arc<E>,
    number: u32,
}

impl<E: EventChannel> Port<E> {
    /// Binds a fresh local port to `remote_port` of `remote_domain`. The new port is pending at once:
    /// Xen can't know what was sent before.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::bind_interdomain`], with [`Error::Bind`] as the source.
    pub fn bind_interdomain(
        channel: &Arc<E>,
        remote_domain: DomId,
        remote_port: u32,
    ) -> io::Result<Self> {
        let number = channel
            .bind_interdomain(remote_domain, remote_port)
            .map_err(|source| Error::Bind { remote_domain, remote_port, source })?;
        Ok(Self { channel: Arc::clone(channel), number })
    }

    /// The local port, as [`EventChannel::pending`] reports it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Raises the event at the remote end.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::notify`].
    pub fn notify(&self) -> io::Result<()> {
        self.channel.notify(self.number)
    }

    /// Lets the port become pending again.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::unmask`].
    pub fn unmask(&self) -> io::Result<()> {
        self.channel.unmask(&[self.number])
    }
}

impl<E: EventChannel> fmt::Debug for Port<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("number", &self.number).finish_non_exhaustive()
    }
}

impl<E: EventChannel> Drop for Port<E> {
    fn drop(&mut self) {
        // The only failure is ENOTCONN: someone unbound the number behind this value's back.
        let _ = self.channel.unbind(self.number);
    }
}
