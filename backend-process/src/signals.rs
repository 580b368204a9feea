//! Signals, as descriptors to wait at; and those that shall not end the process.

use std::{
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::AtomicBool},
};

use nix::sys::signal::{SigSet, Signal};
pub use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};

/// What an operator gives a program orders by.
pub const ORDERS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// Some signals, which are waited for as one descriptor that becomes readable.
#[derive(Debug)]
pub struct Signals(UnixStream);

impl Signals {
    /// From now on, `signals` do nothing else.
    ///
    /// # Errors
    /// No socket can be had, or one of `signals` can't be handled, as SIGKILL.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        for &signal in signals {
            signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
        }
        Ok(Self(ours))
    }

    /// How many have come since the last call. The descriptor is no longer readable then.
    pub fn take(&self) -> usize {
        let mut all = 0;
        // It ends with EAGAIN; the other end is never closed.
        while let Ok(count @ 1..) = (&self.0).read(&mut [0; 64]) {
            all += count;
        }
        all
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal's name, as `SIGSEGV`.
pub fn name(signal: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(signal)
}

/// Has `signals` do nothing to this thread, nor to those that it starts from now on. Sent to a process whose threads all
/// have them blocked, they do nothing to it.
///
/// # Errors
/// One of `signals` is none.
pub fn block(signals: &[i32]) -> io::Result<()> {
    let signals: Result<SigSet, _> =
        signals.iter().map(|&signal| Signal::try_from(signal)).collect();
    Ok(signals?.thread_block()?)
}

/// Has a write beyond RLIMIT_FSIZE, or to a pipe without a reader, fail with EFBIG or EPIPE, and
/// not end the process: it is an error of the disk that was written, and no other's.
///
/// # Errors
/// The system refuses to.
pub fn survive_failed_writes() -> io::Result<()> {
    // SIGPIPE is ignored by Rust's runtime before `main`. A handler serves as well as ignoring,
    // but that programs started from here get the usual action again.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
        process::{Resource, Rlimit, getrlimit, setrlimit},
    };
    use signal_hook::low_level::raise;
    use std::os::unix::fs::FileExt;

    #[test]
    fn signals_are_counted_and_taken_once() {
        let signals = Signals::new(&[SIGUSR1, SIGHUP]).unwrap();
        let readable = || {
            let mut fds = [PollFd::new(&signals, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        assert_eq!((readable(), signals.take()), (false, 0));
        raise(SIGUSR1).unwrap();
        raise(SIGHUP).unwrap();
        assert!(readable());
        assert_eq!((signals.take(), readable(), signals.take()), (2, false, 0));
    }

    #[test]
    fn a_blocked_signal_does_nothing() {
        let thread = std::thread::spawn(|| {
            block(&[SIGTERM, SIGUSR1]).unwrap();
            // Otherwise they end the process.
            raise(SIGTERM).unwrap();
            std::thread::spawn(|| raise(SIGUSR1).unwrap()).join().unwrap();
        });
        thread.join().unwrap();
        assert!(block(&[0]).is_err());
    }

    #[test]
    fn a_write_beyond_the_file_size_limit_is_an_error_and_not_the_end() {
        // More than any other test of this process writes.
        const LIMIT: u64 = 1 << 20;
        survive_failed_writes().unwrap();
        let before = getrlimit(Resource::Fsize);
        let file = tempfile::tempfile().unwrap();
        setrlimit(Resource::Fsize, Rlimit { current: Some(LIMIT), ..before }).unwrap();
        let written = file.write_at(&[0], LIMIT);
        setrlimit(Resource::Fsize, before).unwrap();
        let error = written.unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::FBIG), "{error}");
    }
}
