//! A byte stream to the daemon, and the messages on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::PAYLOAD_MAX;
use crate::sys::Header;
use crate::wire::{self, Message};

/// Why no message came.
pub(crate) enum Failure {
    Io(io::Error),
    Protocol(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The stream may be blocking or not: it is polled before every read.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: File,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { stream: File::from(fd), received: Vec::new() }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends one message, in one write where possible, as `/dev/xen/xenbus` expects.
    pub(crate) fn send(&mut self, mut message: &[u8], deadline: Instant) -> io::Result<()> {
        while !message.is_empty() {
            match self.stream.write(message) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => message = &message[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.poll(libc::POLLOUT, Some(deadline))? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next message, waiting for it until `deadline`.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<Message, Failure> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(message);
            }
            if !self.fill(Some(deadline))? {
                return Err(Failure::Io(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// The next message if it is there already. A part of one is kept for the next call.
    pub(crate) fn try_receive(&mut self) -> Result<Option<Message>, Failure> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if !self.fill(None)? {
                return Ok(None);
            }
        }
    }

    /// The next message, if it has been read already: the descriptor does not tell of it.
    pub(crate) fn buffered(&mut self) -> Result<Option<Message>, Failure> {
        wire::take(&mut self.received).map_err(Failure::Protocol)
    }

    /// Reads what is there; false if nothing came until `deadline`, or nothing is there now.
    fn fill(&mut self, deadline: Option<Instant>) -> io::Result<bool> {
        let mut chunk = [0; size_of::<Header>() + PAYLOAD_MAX];
        loop {
            if !self.poll(libc::POLLIN, deadline)? {
                return Ok(false);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    let gone = "xenstored closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, gone));
                }
                Ok(read) => {
                    self.received.extend_from_slice(&chunk[..read]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Readable a moment ago: poll decides whether there is time to wait again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for `events` until `deadline`, or looks once without one; false if they did not come.
    fn poll(&self, events: libc::c_short, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let left =
                deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            let timeout =
                left.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX);
            let mut poll = libc::pollfd { fd: self.stream.as_raw_fd(), events, revents: 0 };
            // SAFETY: `poll` is one pollfd, exclusively borrowed for the call.
            match unsafe { libc::poll(&raw mut poll, 1, timeout) } {
                0 => return Ok(false),
                1.. => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::thread;

    #[test]
    fn what_does_not_fit_at_once_is_sent_when_there_is_room() {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (Connection::new(ours.into()), theirs)
        };
        let message: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut connection, _theirs) = pair();
        let deadline = Instant::now() + Duration::from_millis(20);
        let error = connection.send(&message, deadline).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut connection, mut theirs) = pair();
        let daemon = thread::spawn(move || {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).unwrap();
            received
        });
        connection.send(&message, Instant::now() + Duration::from_secs(60)).unwrap();
        drop(connection);
        assert!(daemon.join().unwrap() == message);
    }
}
