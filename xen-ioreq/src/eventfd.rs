//! Interrupts through the kernel: `IOCTL_PRIVCMD_IRQFD`.
//!
//! It needs a kernel with CONFIG_XEN_PRIVCMD_EVENTFD (Linux 6.6); without it, creation fails with ENOTTY, and
//! [`DeviceModel::set_irq_level`] does the same work. Its counterpart for the guest's notifications,
//! `IOCTL_PRIVCMD_IOEVENTFD`, is not supported: the kernel keeps a pointer to the page of requests beyond the end of the
//! process, and a panic of dom0's kernel has been seen after a process was killed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::device_model::DeviceModel;

/// Eventfds bound to a guest in the kernel. [`IrqFd`] is the owned form.
pub trait EventFds: DeviceModel {
    /// Binds (or, without `assign`, unbinds) an eventfd to an interrupt: each wake-up raises `irq`.
    ///
    /// # Errors
    ///
    /// EBUSY: the eventfd is bound already. ENOTTY: not in this kernel.
    fn irqfd(&self, irq: u32, eventfd: BorrowedFd<'_>, assign: bool) -> io::Result<()>;
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
