//! Event channels of the kernel.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::readable::readable;
use crate::{DomId, Error, EventChannel, sys};

const DEVICE: &str = "/dev/xen/evtchn";

/// This domain, to itself (xen/include/public/xen.h).
const DOMID_SELF: DomId = 0x7ff0;

/// The driver takes and gives at most a page of ports per call.
const PORTS_PER_CALL: usize = 1024;

/// An open `/dev/xen/evtchn`.
///
/// Closing it (dropping this value) unbinds every port bound through it; the remote ends go back to
/// unbound, and another descriptor can bind them.
#[derive(Debug)]
pub struct Evtchn {
    file: File,
    /// A read of the descriptor sleeps.
    blocks: bool,
}

impl Evtchn {
    /// Opens `/dev/xen/evtchn`, nonblocking and close-on-exec.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`, with [`Error::Open`] as the source: ENOENT and ENXIO mean that the kernel does
    /// not run on Xen or lacks `CONFIG_XEN_DEV_EVTCHN`, EACCES that the caller is not root.
    pub fn open() -> io::Result<Self> {
        Self::open_with(libc::O_NONBLOCK)
    }

    /// The same, for a thread that sleeps in [`EventChannel::wait`]: that is one system call then, and
    /// [`EventChannel::pending`] takes one more.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    pub fn open_blocking() -> io::Result<Self> {
        Self::open_with(0)
    }

    fn open_with(flags: libc::c_int) -> io::Result<Self> {
        let path = Path::new(DEVICE);
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        opened
            .map(|file| Self { file, blocks: flags & libc::O_NONBLOCK == 0 })
            .map_err(|source| Error::Open { path: path.to_owned(), source }.into())
    }

    /// Reads ports; sleeps or not, as the descriptor is.
    fn read(&self, ports: &mut [u32]) -> io::Result<usize> {
        // SAFETY: the pointer and the length describe `ports`, which is exclusively borrowed; the
        // kernel writes only plain bytes there and every bit pattern is a `u32`.
        let read = unsafe {
            libc::read(self.file.as_raw_fd(), ports.as_mut_ptr().cast(), size_of_val(ports))
        };
        match usize::try_from(read) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => Ok(bytes / size_of::<u32>()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn ioctl<T>(&self, request: u32, argument: &T) -> io::Result<u32> {
        // SAFETY: the descriptor is open for as long as `self`; every `request` of `sys` reads at most
        // one `T`, the argument it is paired with at the call, and writes nothing through the pointer.
        let result = unsafe {
            libc::ioctl(self.file.as_raw_fd(), request as libc::Ioctl, std::ptr::from_ref(argument))
        };
        u32::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

impl From<OwnedFd> for Evtchn {
    /// Wraps an open `/dev/xen/evtchn`, for instance one handed over by a privileged parent.
    /// It should be nonblocking: [`EventChannel::pending`] sleeps otherwise.
    fn from(fd: OwnedFd) -> Self {
        Self { file: File::from(fd), blocks: false }
    }
}

impl EventChannel for Evtchn {
    fn bind_interdomain(&self, remote_domain: DomId, remote_port: u32) -> io::Result<u32> {
        let bind = sys::BindInterdomain { remote_domain: remote_domain.into(), remote_port };
        self.ioctl(sys::BIND_INTERDOMAIN, &bind)
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        self.ioctl(sys::UNBIND, &sys::LocalPort { port }).map(drop)
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        self.ioctl(sys::NOTIFY, &sys::LocalPort { port }).map(drop)
    }

    fn pending(&self, ports: &mut [u32]) -> io::Result<usize> {
        if ports.is_empty() {
            return Ok(0);
        }
        // Who reads is one thread, so that nobody else takes what was seen here.
        if self.blocks && !readable(self.as_fd(), 0)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read(ports)
    }

    fn wait(&self, ports: &mut [u32]) -> io::Result<usize> {
        if ports.is_empty() {
            return Ok(0);
        }
        if !self.blocks {
            readable(self.as_fd(), -1)?;
        }
        self.read(ports)
    }

    fn bind_loopback(&self) -> io::Result<(u32, u32)> {
        let unbound = sys::BindUnboundPort { remote_domain: DOMID_SELF.into() };
        let first = self.ioctl(sys::BIND_UNBOUND_PORT, &unbound)?;
        let second = self.bind_interdomain(DOMID_SELF, first).inspect_err(|_| {
            // It is of no use alone; the descriptor's end would close it, too.
            let _ = self.unbind(first);
        })?;
        Ok((first, second))
    }

    fn unmask(&self, ports: &[u32]) -> io::Result<()> {
        for chunk in ports.chunks(PORTS_PER_CALL) {
            // SAFETY: the pointer and the length describe `chunk`, which outlives the call.
            let written = unsafe {
                libc::write(self.file.as_raw_fd(), chunk.as_ptr().cast(), size_of_val(chunk))
            };
            match usize::try_from(written) {
                Ok(bytes) if bytes == size_of_val(chunk) => {}
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        self.ioctl(sys::RESET, &()).map(drop)
    }

    fn restrict(&self, domid: DomId) -> io::Result<()> {
        self.ioctl(sys::RESTRICT_DOMID, &sys::RestrictDomid { domid }).map(drop)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// The driver's `read` and `write` carry plain `u32` ports, so a socket can stand in for it. To
    /// Miri it is a file: it knows neither a socket's own calls nor its ioctls.
    fn pair() -> (Evtchn, File) {
        let (driver, ours) = UnixStream::pair().unwrap();
        // SAFETY: the descriptor is open, and the command takes plain flags.
        let set = unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        assert_eq!(set, 0);
        (Evtchn::from(OwnedFd::from(ours)), File::from(OwnedFd::from(driver)))
    }

    #[test]
    fn pending_reads_a_batch_of_ports() {
        let (evtchn, mut driver) = pair();
        let mut ports = [0; 4];
        assert_eq!(evtchn.pending(&mut ports).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for port in [7_u32, 9] {
            driver.write_all(&port.to_ne_bytes()).unwrap();
        }
        assert_eq!(evtchn.pending(&mut []).unwrap(), 0);
        assert_eq!(evtchn.pending(&mut ports).unwrap(), 2);
        assert_eq!(ports, [7, 9, 0, 0]);
        drop(driver);
        assert_eq!(evtchn.pending(&mut ports).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn unmask_writes_every_port_however_many() {
        let (evtchn, mut driver) = pair();
        let ports: Vec<u32> = (0..PORTS_PER_CALL as u32 + 3).collect();
        evtchn.unmask(&ports).unwrap();
        let mut seen = vec![0; ports.len() * size_of::<u32>()];
        driver.read_exact(&mut seen).unwrap();
        let seen: Vec<u32> =
            seen.chunks_exact(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap())).collect();
        assert_eq!(seen, ports);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no such ioctls")]
    fn a_failed_ioctl_is_the_kernels_error() {
        let (evtchn, _driver) = pair();
        let errors = [
            evtchn.bind_interdomain(1, 2).map(drop),
            evtchn.unbind(3),
            evtchn.notify(3),
            evtchn.reset(),
            evtchn.restrict(1),
        ];
        for error in errors {
            assert!(error.unwrap_err().raw_os_error().is_some());
        }
    }
}
