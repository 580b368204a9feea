//! A channel of a descriptor to itself, owned.

use std::{fmt, io, sync::Arc};

use crate::EventChannel;

/// Two local ports that are bound to each other: a way to end the sleep of a thread that waits for events of the same
/// descriptor ([`EventChannel::wait`]). To be made before the descriptor is restricted to a guest. Dropping it unbinds
/// both.
pub struct Loopback<E: EventChannel> {
    channel: Arc<E>,
    bell: u32,
    listener: u32,
}

impl<E: EventChannel> Loopback<E> {
    /// Binds two fresh ports. Both are pending at once.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::bind_loopback`].
    pub fn bind(channel: &Arc<E>) -> io::Result<Self> {
        let (bell, listener) = channel.bind_loopback()?;
        Ok(Self { channel: Arc::clone(channel), bell, listener })
    }

    /// The local ports, as [`EventChannel::pending`] reports them.
    pub fn ports(&self) -> [u32; 2] {
        [self.bell, self.listener]
    }

    /// Makes the descriptor report the second of the [ports](Self::ports). Any thread may do that.
    ///
    /// # Errors
    ///
    /// Those of [`EventChannel::notify`].
    pub fn ring(&self) -> io::Result<()> {
        self.channel.notify(self.bell)
    }
}

impl<E: EventChannel> fmt::Debug for Loopback<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loopback").field("ports", &self.ports()).finish_non_exhaustive()
    }
}

impl<E: EventChannel> Drop for Loopback<E> {
    fn drop(&mut self) {
        // The only failure is ENOTCONN: someone unbound the number behind this value's back.
        let _ = self.channel.unbind(self.bell);
        let _ = self.channel.unbind(self.listener);
    }
}
