//! Watch events that wait to be taken.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::WatchEvent;

/// The most events that may wait.
const LIMIT: usize = 65536;

/// More than [`LIMIT`] events wait.
#[derive(Debug)]
pub(crate) struct TooMany;

/// A queue without duplicates, whose descriptor is readable while it holds something or is held readable.
#[derive(Debug)]
pub(crate) struct EventQueue {
    queue: VecDeque<WatchEvent>,
    waiting: HashSet<WatchEvent>,
    readable: File,
    signalled: bool,
    held: bool,
}

impl EventQueue {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            queue: VecDeque::new(),
            waiting: HashSet::new(),
            readable: File::from(fd),
            signalled: false,
            held: false,
        })
    }

    /// Queues an event, unless an equal one is waiting.
    pub(crate) fn push(&mut self, event: WatchEvent) -> Result<(), TooMany> {
        if self.waiting.contains(&event) {
            return Ok(());
        }
        if self.queue.len() == LIMIT {
            return Err(TooMany);
        }
        self.waiting.insert(event.clone());
        self.queue.push_back(event);
        self.update();
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<WatchEvent> {
        let event = self.queue.pop_front();
        if let Some(event) = &event {
            self.waiting.remove(event);
        }
        self.update();
        event
    }

    /// Keeps the descriptor readable from now on, to report a lost connection.
    pub(crate) fn hold_readable(&mut self) {
        self.held = true;
        self.update();
    }

    fn update(&mut self) {
        let wanted = self.held || !self.queue.is_empty();
        if wanted == self.signalled {
            return;
        }
        // A counter that moves between 0 and 1 neither overflows nor blocks: this can't fail.
        let done = if wanted {
            self.readable.write(&1_u64.to_ne_bytes())
        } else {
            self.readable.read(&mut [0; size_of::<u64>()])
        };
        debug_assert!(done.is_ok(), "{done:?}");
        self.signalled = wanted;
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> WatchEvent {
        WatchEvent { path: format!("/{n}"), token: String::new() }
    }

    #[test]
    fn an_equal_event_waits_once_and_can_come_again() {
        let mut events = EventQueue::new().unwrap();
        for n in [1, 2, 1, 2] {
            events.push(event(n)).unwrap();
        }
        assert_eq!(events.pop(), Some(event(1)));
        events.push(event(1)).unwrap();
        assert_eq!(events.pop(), Some(event(2)));
        assert_eq!(events.pop(), Some(event(1)));
        assert_eq!(events.pop(), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "65536 events take long")]
    fn the_queue_is_bounded() {
        let mut events = EventQueue::new().unwrap();
        for n in 0..LIMIT {
            events.push(event(n)).unwrap();
        }
        events.push(event(0)).unwrap();
        events.push(event(LIMIT)).unwrap_err();
        assert_eq!(events.pop(), Some(event(0)));
        events.push(event(LIMIT)).unwrap();
    }
}
