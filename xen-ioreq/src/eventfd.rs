//! Interrupts and kicks through the kernel: `IOCTL_PRIVCMD_IRQFD` and `IOCTL_PRIVCMD_IOEVENTFD`.
//!
//! They need a kernel with CONFIG_XEN_PRIVCMD_EVENTFD (Linux 6.6 and 6.8); without it, creation fails with
//! ENOTTY, and [`DeviceModel::set_irq_level`] and [`IoreqServer::next_request`](crate::IoreqServer::next_request)
//! do the same work.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use xen_evtchn::{EventChannel, Port};

use crate::device_model::DeviceModel;
use crate::page::IoreqPage;

/// Which writes an ioeventfd takes (`struct privcmd_ioeventfd`): those of `queue` to the QueueNotify register
/// (offset 0x50) of the virtio-mmio window at `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick<'a> {
    /// Where the page of requests is mapped in this process.
    pub page: u64,
    /// The local port of each vCPU.
    pub ports: &'a [u32],
    /// The guest-physical address of the window.
    pub base: u64,
    /// The width of the write in bytes.
    pub size: u32,
    /// The queue's number: the low 16 bits of what is written.
    pub queue: u32,
}

/// Eventfds bound to a guest in the kernel. [`IrqFd`] and [`IoEventFd`] are the owned forms.
pub trait EventFds: DeviceModel {
    /// Binds (or, without `assign`, unbinds) an eventfd to an interrupt: each wake-up raises `irq`.
    ///
    /// # Errors
    ///
    /// EBUSY: the eventfd is bound already. ENOTTY: not in this kernel.
    fn irqfd(&self, irq: u32, eventfd: BorrowedFd<'_>, assign: bool) -> io::Result<()>;

    /// Binds (or, without `assign`, unbinds) an eventfd to a kick, which the kernel then answers itself.
    ///
    /// # Errors
    ///
    /// EEXIST: the kick has an eventfd already. ENODEV: there is nothing to unbind. ENOTTY: not in this kernel.
    ///
    /// # Safety
    ///
    /// After a call with `assign`, the kernel keeps the address of the pages behind `kick.page`: they must
    /// stay mapped, and the ports bound, until a call without it has succeeded.
    unsafe fn ioeventfd(
        &self,
        kick: &Kick<'_>,
        eventfd: BorrowedFd<'_>,
        assign: bool,
    ) -> io::Result<()>;
}

/// A new, non-blocking eventfd.
fn eventfd() -> io::Result<File> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made `fd`, and nobody else knows of it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// An eventfd that raises an interrupt of the guest. It is unbound when dropped; the kernel also unbinds it
/// when the process dies.
#[derive(Debug)]
pub struct IrqFd<M: EventFds> {
    model: Arc<M>,
    eventfd: File,
    irq: u32,
}

impl<M: EventFds> IrqFd<M> {
    /// Binds a new eventfd to `irq`, a GIC INTID of 32 and up.
    ///
    /// # Errors
    ///
    /// Those of [`EventFds::irqfd`]; no descriptor is left.
    pub fn new(model: Arc<M>, irq: u32) -> io::Result<Self> {
        let eventfd = eventfd()?;
        model.irqfd(irq, eventfd.as_fd(), true)?;
        Ok(Self { model, eventfd, irq })
    }

    /// Raises the interrupt. Several calls before the kernel handles them raise it once.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`; none is expected.
    pub fn raise(&self) -> io::Result<()> {
        (&self.eventfd).write_all(&1_u64.to_ne_bytes())
    }
}

impl<M: EventFds> AsFd for IrqFd<M> {
    /// The eventfd, for another component that raises the interrupt by writing a `u64` to it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl<M: EventFds> Drop for IrqFd<M> {
    fn drop(&mut self) {
        // If this fails, closing the descriptor unbinds it.
        let _ = self.model.irqfd(self.irq, self.eventfd.as_fd(), false);
    }
}

/// An eventfd that counts the guest's kicks of one queue; the kernel answers them, so that the vCPU does not wait
/// for this process. Made by [`IoreqServer::ioeventfd`](crate::IoreqServer::ioeventfd).
///
/// # Hazard
///
/// The kernel's handler holds a raw pointer to the page of requests and keeps the ports until it is unbound;
/// the end of the process does **not** unbind it. If a process dies without dropping this, for example by
/// SIGKILL, the handler accesses a page that no longer exists at the guest's next kick; a panic of dom0's kernel
/// has been seen. If the backend may be killed, keep a guard process that holds the mapping and the
/// descriptors, or don't use ioeventfds.
///
/// As the kernel and [`IoreqServer`](crate::IoreqServer) serve the same slots and ports, the server sees
/// each kick as a spurious event.
#[derive(Debug)]
pub struct IoEventFd<M: EventFds, E: EventChannel> {
    model: Arc<M>,
    eventfd: File,
    // The kernel's handler points to these, so they have to stay until it is unbound.
    page: Arc<IoreqPage>,
    ports: Arc<[Port<E>]>,
    numbers: Vec<u32>,
    base: u64,
    size: u32,
    queue: u32,
}

impl<M: EventFds, E: EventChannel> IoEventFd<M, E> {
    pub(crate) fn new(
        model: Arc<M>,
        page: Arc<IoreqPage>,
        ports: Arc<[Port<E>]>,
        (base, size, queue): (u64, u32, u32),
    ) -> io::Result<Self> {
        let numbers: Vec<_> = ports.iter().map(Port::number).collect();
        let eventfd = eventfd()?;
        let kick = Kick { page: page.address(), ports: &numbers, base, size, queue };
        // SAFETY: the value made here holds the page and the ports, and leaks them unless it unbinds.
        unsafe { model.ioeventfd(&kick, eventfd.as_fd(), true) }?;
        Ok(Self { model, eventfd, page, ports, numbers, base, size, queue })
    }

    /// The number of kicks since the last call.
    ///
    /// # Errors
    ///
    /// Those of `read(2)`; none is expected.
    pub fn take(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        match (&self.eventfd).read_exact(&mut count) {
            Ok(()) => Ok(u64::from_ne_bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl<M: EventFds, E: EventChannel> AsFd for IoEventFd<M, E> {
    /// Readable (POLLIN) while kicks are waiting.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl<M: EventFds, E: EventChannel> Drop for IoEventFd<M, E> {
    fn drop(&mut self) {
        let kick = Kick {
            page: self.page.address(),
            ports: &self.numbers,
            base: self.base,
            size: self.size,
            queue: self.queue,
        };
        // SAFETY: a call that unbinds leaves nothing in the kernel that would have to be kept.
        let unbound = unsafe { self.model.ioeventfd(&kick, self.eventfd.as_fd(), false) };
        if unbound.is_err() {
            // The kernel's handler still exists: what it points to is leaked.
            std::mem::forget(Arc::clone(&self.page));
            std::mem::forget(Arc::clone(&self.ports));
        }
    }
}
