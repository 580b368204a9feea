//! The pseudoterminal of one console.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::Errno,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr},
};
use virtio_dev::{Chain, vm_memory::GuestAddressSpace};
use xen_virtio_backend::node::DeviceId;

/// Bytes of one request that are printed. The guest's other devices wait meanwhile, and no driver prints as much at once.
const MAX_OUTPUT: u64 = 64 << 10;

/// Why there is no terminal for a console.
#[derive(Debug, thiserror::Error)]
#[error(
    "can't make a pseudoterminal for the console: mount devpts at /dev/pts, or raise the sysctl kernel.pty.max"
)]
pub(crate) struct PtyError(#[from] io::Error);

/// Makes a pseudoterminal and logs its name. Both sides of it are open.
pub(crate) fn open(id: DeviceId) -> Result<Vec<OwnedFd>, PtyError> {
    let (ours, theirs) = pair().map_err(io::Error::from)?;
    let name = ptsname(&ours, Vec::new()).map_err(io::Error::from)?;
    tracing::info!(%id, terminal = %name.to_string_lossy(), "the guest's console is this terminal");
    Ok(vec![ours, theirs])
}

/// A pseudoterminal, raw: the guest's own terminal edits and echoes.
fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let mut attributes = tcgetattr(&theirs)?;
    attributes.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &attributes)?;
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

/// One that was [opened](open).
pub(crate) struct Pty {
    /// First our side: what is typed is read here, what the guest prints written. It doesn't block. Then the side that
    /// users open: while it is open here, the other has no hang-up when they close it, which would be readable without
    /// end.
    sides: Vec<OwnedFd>,
    /// Bytes for which there was no room, as nobody reads.
    lost: u64,
}

impl Pty {
    /// Of the files of [`open`].
    pub(crate) fn new(sides: Vec<OwnedFd>) -> Self {
        Self { sides, lost: 0 }
    }

    fn ours(&self) -> &OwnedFd {
        &self.sides[0]
    }

    /// Readable when something was typed.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.ours().as_fd()
    }

    /// Puts what was typed into the request, `None` if nothing was. The number of bytes.
    pub(crate) fn read<M: GuestAddressSpace>(&self, request: &Chain<M>) -> Option<u32> {
        let mut bytes = [0; 1024];
        let room = request.writable_len().min(bytes.len() as u64) as usize;
        let typed = rustix::io::read(self.ours(), &mut bytes[..room]).ok()?;
        Some(request.copy_to(0, &bytes[..typed]).unwrap_or(0) as u32)
    }

    /// Prints what is in the request, which is answered by no bytes.
    pub(crate) fn print<M: GuestAddressSpace>(&mut self, request: &Chain<M>) -> u32 {
        let (mut bytes, mut offset) = ([0; 1024], 0);
        while offset < MAX_OUTPUT
            && let Ok(count @ 1..) = request.copy_from(offset, &mut bytes)
        {
            self.write(&bytes[..count]);
            offset += count as u64;
        }
        self.lose(request.readable_len() - offset);
        0
    }

    /// Prints `bytes`. The terminal keeps some tens of KiB for a reader; what is beyond that is lost.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match rustix::io::write(self.ours(), bytes) {
                Ok(count @ 1..) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => {
                    return self.lose(bytes.len() as u64);
                }
            }
        }
    }

    /// Columns and rows. Both are 0 until a user's program has set them.
    pub(crate) fn size(&self) -> (u16, u16) {
        tcgetwinsize(self.ours()).map_or((0, 0), |size| (size.ws_col, size.ws_row))
    }

    /// Counts bytes that are not printed.
    fn lose(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// How many bytes there was no room for.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}
