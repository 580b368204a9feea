//! One thread waking another: an eventfd.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// A wake-up that isn't lost when it comes before the wait.
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    /// A wake-up nobody has asked for yet.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Wakes the waiter, now or at its next wait.
    pub(crate) fn wake(&self) {
        // The counter would have to stand at 2^64 - 2 for this to fail.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Sleeps until woken, `other` is readable, or `timeout` is over.
    pub(crate) fn wait_with(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        if other.is_none() && timeout.is_none() {
            self.wait();
            return Ok(());
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let own = PollFd::new(&self.0, PollFlags::IN);
        let (mut alone, mut both);
        let fds: &mut [PollFd<'_>] = match other {
            None => {
                alone = [own];
                &mut alone
            }
            Some(fd) => {
                both = [own, PollFd::from_borrowed_fd(fd, PollFlags::IN)];
                &mut both
            }
        };
        match poll(fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            self.wait();
        }
        Ok(())
    }

    /// Sleeps until woken; every wake-up so far counts as one.
    pub(crate) fn wait(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_wait_is_not_lost() {
        let wake = Wake::new().unwrap();
        wake.wake();
        wake.wake();
        wake.wait();
    }

    #[test]
    fn waiting_ends_by_a_wake_another_descriptor_or_in_time() {
        let (wake, other) = (Wake::new().unwrap(), Wake::new().unwrap());
        let second = Some(Duration::from_secs(60));
        wake.wake();
        wake.wait_with(Some(other.as_fd()), second).unwrap();
        other.wake();
        wake.wait_with(Some(other.as_fd()), second).unwrap();
        other.wait();
        wake.wait_with(Some(other.as_fd()), Some(Duration::from_millis(1))).unwrap();
    }
}
