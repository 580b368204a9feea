//! What the handshake hears of: the processes of guests, and threads that open devices. It waits for none of them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    time::Duration,
};

use backend_process::chain;
use tracing::debug;
use virtio_worker::{Wake, Waker};

use crate::{
    backend::{Backend, Opened},
    guest::{End, MessageOf},
    node::DeviceId,
    process::GuestKey,
    refusal::Refusal,
};

/// How many messages of guests' processes wait at most. More of them wait in the sockets: what a guest has taken over
/// may send without end.
const MESSAGES: usize = 256;

/// Something that has happened.
pub(super) enum Event<B: Backend> {
    /// What a device is made of was opened, or can't be.
    Opened(DeviceId, Result<Opened<B::Resources>, Refusal>),
    /// What was opened for a device is closed here: it was sent to the process of its guest, or is not wanted.
    Closed(DeviceId),
    /// The process of a guest tells something.
    Told(GuestKey, Box<MessageOf<B>>),
    /// The process of a guest is of another version, and can't be talked with.
    OtherVersion(GuestKey, String),
    /// The process of a guest has ended, and all that it had is closed.
    Ended(GuestKey, End),
}

/// Where events go to.
pub(super) struct EventSender<B: Backend> {
    own: Sender<Event<B>>,
    guests: SyncSender<Event<B>>,
    waker: Waker,
}

impl<B: Backend> Clone for EventSender<B> {
    fn clone(&self) -> Self {
        let (own, guests) = (self.own.clone(), self.guests.clone());
        Self { own, guests, waker: self.waker.clone() }
    }
}

impl<B: Backend> EventSender<B> {
    pub(super) fn send(&self, event: Event<B>) {
        if self.own.send(event).is_ok() {
            self.waker.wake();
        }
    }

    /// An event that a guest may be behind. Waits for room.
    pub(super) fn send_of_guest(&self, event: Event<B>) {
        // So that whoever takes events makes room.
        self.waker.wake();
        if self.guests.send(event).is_ok() {
            self.waker.wake();
        }
    }
}

/// Events that have happened and were not taken yet. Its descriptor is readable while there are some.
pub(super) struct EventBox<B: Backend> {
    own: Receiver<Event<B>>,
    guests: Receiver<Event<B>>,
    wake: Wake,
    waker: Waker,
}

impl<B: Backend> EventBox<B> {
    /// Both ends.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub(super) fn channel() -> io::Result<(EventSender<B>, Self)> {
        let (own_sender, own) = mpsc::channel();
        let (guests_sender, guests) = mpsc::sync_channel(MESSAGES);
        let wake = Wake::new()?;
        let waker = wake.waker();
        let sender = EventSender { own: own_sender, guests: guests_sender, waker: waker.clone() };
        Ok((sender, Self { own, guests, wake, waker }))
    }

    /// Takes what is there.
    pub(super) fn take(&mut self) -> Vec<Event<B>> {
        if let Err(error) = self.wake.wait(None, Some(Duration::ZERO)) {
            debug!(error = %chain(&error), "the descriptor of the guests' events can't be waited for");
        }
        let mut events: Vec<_> = self.own.try_iter().collect();
        let of_guests = events.len();
        events.extend(self.guests.try_iter().take(MESSAGES));
        if events.len() - of_guests == MESSAGES {
            // There may be more.
            self.waker.wake();
        }
        events
    }
}

impl<B: Backend> AsFd for EventBox<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
