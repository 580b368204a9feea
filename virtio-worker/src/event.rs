//! The kernel's side of a wake-up: an eventfd, and an epoll instance that watches it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;

/// Events that one `epoll_wait` takes. If there are more, the next one returns at once.
const EVENTS: usize = 4;

/// An eventfd that is watched edge-triggered. Each write to it is an edge, so that it need not be read, and
/// a sleep is one system call.
#[derive(Debug)]
pub(crate) struct Event {
    eventfd: OwnedFd,
    epoll: OwnedFd,
}

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let event = Self { eventfd, epoll };
        event.watch(event.eventfd.as_fd())?;
        Ok(event)
    }

    pub(crate) fn signal(&self) {
        // The counter would have to stand at 2^64 - 2 for this to fail.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(0), edges) {
            // EEXIST: it is already watched.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn wait(
        &self,
        host: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if host.is_none() && timeout.is_none() {
            return self.take_edges(None);
        }
        // Not by epoll_pwait2(2), which Linux has since 5.11 only; epoll_wait(2) counts milliseconds.
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let own = PollFd::new(&self.epoll, PollFlags::IN);
        let ready = match host {
            None => {
                let mut fds = [own];
                poll(&mut fds, timeout.as_ref()).map(|_| !fds[0].revents().is_empty())
            }
            Some(host) => {
                let mut fds = [own, PollFd::from_borrowed_fd(host, PollFlags::IN)];
                poll(&mut fds, timeout.as_ref()).map(|_| !fds[0].revents().is_empty())
            }
        };
        match ready {
            Ok(true) => self.take_edges(Some(&Timespec { tv_sec: 0, tv_nsec: 0 })),
            // A signal handler may have changed something.
            Ok(false) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_edges(&self, timeout: Option<&Timespec>) -> io::Result<()> {
        let none =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        match epoll::wait(&self.epoll, &mut [none; EVENTS], timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable while there is an edge that was not taken.
impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
impl Event {
    /// How often it was signalled since the last call.
    pub(crate) fn signals(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.eventfd, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                0
            }
        }
    }
}
