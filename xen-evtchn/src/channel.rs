//! The operations on an open event-channel descriptor.

use std::io;
use std::os::fd::BorrowedFd;

/// A Xen domain identifier (`domid_t`).
pub type DomId = u16;

/// One descriptor of `/dev/xen/evtchn` and the ports bound through it.
///
/// All methods take `&self` and may be called from several threads. Failures are the kernel's, so
/// `raw_os_error` tells them apart (Linux `drivers/xen/evtchn.c`, Xen `common/event_channel.c`).
pub trait EventChannel: Send + Sync + 'static {
    /// Binds a fresh local port to `remote_port` of `remote_domain`, which must be unbound and offered to
    /// this domain, and returns the local port. It is pending at once. [`Port`](crate::Port) is
    /// the owned form.
    ///
    /// # Errors
    ///
    /// ESRCH: no such domain. EINVAL: no such port, or it is closed, already bound, or offered to another
    /// domain. EACCES: the descriptor is restricted to another domain. ENOSPC: no local port is free.
    fn bind_interdomain(&self, remote_domain: DomId, remote_port: u32) -> io::Result<u32>;

    /// Closes a local port. Its remote end goes back to unbound. A pending entry of the port that was
    /// not read yet stays in the ring, so [`pending`](Self::pending) may still report the number.
    ///
    /// # Errors
    ///
    /// ENOTCONN: the port is not bound through this descriptor. EINVAL: the number is beyond Xen's ports.
    fn unbind(&self, port: u32) -> io::Result<()>;

    /// Raises the event at the remote end; nothing happens when that end is closed.
    ///
    /// # Errors
    ///
    /// ENOTCONN: the port is not bound through this descriptor.
    fn notify(&self, port: u32) -> io::Result<()>;

    /// Takes pending local ports: fills the front of `ports` and returns how many, at most 1024 a call
    /// (a page of the driver's ring). Each one is masked until [`unmask`](Self::unmask); events
    /// that come meanwhile are remembered as one. An empty `ports` takes nothing and gives 0.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): nothing is pending. EFBIG: the driver's ring overflowed and
    /// [`reset`](Self::reset) must be called.
    fn pending(&self, ports: &mut [u32]) -> io::Result<usize>;

    /// Sleeps until a port is pending, and takes what is, as [`pending`](Self::pending) does. One system call of a
    /// descriptor that blocks ([`Evtchn::open_blocking`](crate::Evtchn::open_blocking)).
    ///
    /// # Errors
    ///
    /// [`Interrupted`](io::ErrorKind::Interrupted): by a signal. EFBIG as of [`pending`](Self::pending).
    fn wait(&self, ports: &mut [u32]) -> io::Result<usize>;

    /// Binds two local ports to each other and returns them: what the first notifies, the second has pending. Binding
    /// makes both pending at once. [`Loopback`](crate::Loopback) is the owned form.
    ///
    /// # Errors
    ///
    /// EACCES: the descriptor is restricted. ENOSPC: no local port is free.
    fn bind_loopback(&self) -> io::Result<(u32, u32)>;

    /// Lets `ports` become pending again. The driver ignores the ones that are not bound through this
    /// descriptor or not masked.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`; none is expected.
    fn unmask(&self, ports: &[u32]) -> io::Result<()>;

    /// Empties the ring of pending ports and clears its overflow. The ports that were in it stay masked:
    /// afterwards treat every bound port as pending, and unmask it.
    ///
    /// # Errors
    ///
    /// Those of `ioctl(2)`; none is expected.
    fn reset(&self) -> io::Result<()>;

    /// From now on only ports of `domid` can be bound. Ports bound before keep working. Irrevocable.
    ///
    /// # Errors
    ///
    /// EACCES: already restricted. EINVAL: `domid` is 0 or reserved (0x7ff0 and up).
    fn restrict(&self, domid: DomId) -> io::Result<()>;

    /// The descriptor to poll: readable (POLLIN) while a port is pending, POLLERR after an overflow.
    fn as_fd(&self) -> BorrowedFd<'_>;
}
