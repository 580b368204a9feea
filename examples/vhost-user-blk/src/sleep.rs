//! What a queue's thread sleeps on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

/// The order to stop, given by the thread that serves the socket.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<(AtomicBool, OwnedFd)>);

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new((AtomicBool::new(false), event))))
    }

    pub(crate) fn give(&self) {
        self.0.0.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the thread, to look at what has changed.
    pub(crate) fn wake(&self) {
        // The counter would have to stand at 2^64 - 2 for this to fail.
        let _ = rustix::io::write(&self.0.1, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }
}

/// Sleeps until the driver kicks, the engine has finished something, or the order to stop comes.
///
/// The descriptors are watched edge-triggered, which makes a wake-up one system call: each write
/// to an eventfd is an edge, so none has to be read, and nothing that a frontend sends instead of
/// an eventfd is ever waited for in a read.
pub(crate) struct Sleep(OwnedFd);

impl Sleep {
    pub(crate) fn new(
        kick: BorrowedFd<'_>,
        stop: &Stop,
        engine: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        for fd in [Some(kick), Some(stop.0.1.as_fd()), engine].into_iter().flatten() {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(0), edges)?;
        }
        Ok(Self(epoll))
    }

    /// As the kick, stop and engine descriptors are all watched, `timeout` bounds the sleep only.
    pub(crate) fn until_woken(&self, timeout: Option<Duration>) {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 4];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // It fails when a signal comes, which is a wake-up as good as any.
        let _ = epoll::wait(&self.0, &mut events, timeout.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    #[test]
    fn each_kick_wakes_and_none_is_read() {
        let kick = eventfd(0, EventfdFlags::empty()).unwrap();
        let stop = Stop::new().unwrap();
        let sleep = Sleep::new(kick.as_fd(), &stop, None).unwrap();
        for _ in 0..3 {
            rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
            sleep.until_woken(None);
        }
        // Nothing is left over: the next sleep ends with the order to stop.
        let (woken, heard) = mpsc::channel();
        let sleeper = thread::spawn(move || {
            sleep.until_woken(None);
            woken.send(()).unwrap();
        });
        assert!(heard.recv_timeout(Duration::from_millis(50)).is_err(), "woken by nothing");
        assert!(!stop.is_given());
        stop.give();
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        sleeper.join().unwrap();
    }

    #[test]
    fn what_nobody_can_kick_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(Sleep::new(file.as_fd(), &Stop::new().unwrap(), None).is_err());
    }
}
