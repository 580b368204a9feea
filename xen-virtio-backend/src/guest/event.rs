//! What the handshake hears of: guests' threads, and threads that open devices. It waits for none of them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use backend_process::chain;
use tracing::debug;
use virtio_worker::{Wake, Waker};
use xen_ioreq::DomId;

use super::error::GuestError;
use crate::{
    backend::{Backend, Refusal},
    node::DeviceId,
    notices::Notices,
};

/// Something that has happened.
pub enum Event<B: Backend> {
    /// What a device is made of was opened, or can't be.
    Opened(DeviceId, Result<B::Resources, Refusal>),
    /// What a device is made of, and was not attached, is closed.
    Closed(DeviceId),
    /// A device was attached to its guest, or can't be.
    Attached(DeviceId, Result<Arc<B::Figures>, GuestError>),
    /// A device is let go of, and what it stands on is closed.
    Detached(DeviceId),
    /// The window of a device that is not served is answered, or can't be.
    Reserved(DeviceId, Result<(), GuestError>),
    /// What the operator should find in the error nodes of a device.
    Notice(DeviceId, String),
    /// A guest's thread has ended and let go of everything.
    Ended(DomId, End),
}

/// Why a guest's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// The guest is destroyed.
    GuestDestroyed,
    /// It failed; the guest may still run.
    Failed,
}

/// Where events go to.
pub struct EventSender<B: Backend> {
    sender: Sender<Event<B>>,
    waker: Waker,
}

impl<B: Backend> Clone for EventSender<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<B: Backend> EventSender<B> {
    pub(crate) fn send(&self, event: Event<B>) {
        if self.sender.send(event).is_ok() {
            self.waker.wake();
        }
    }

    /// What a device tells the operator by.
    pub(super) fn notices(&self) -> Notices {
        let events = self.clone();
        Notices::new(move |id, text| events.send(Event::Notice(id, text)))
    }
}

/// Events that have happened and were not taken yet. Its descriptor is readable while there are some.
pub struct EventBox<B: Backend> {
    receiver: Receiver<Event<B>>,
    wake: Wake,
}

impl<B: Backend> EventBox<B> {
    /// Both ends.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn channel() -> io::Result<(EventSender<B>, Self)> {
        let (sender, receiver) = mpsc::channel();
        let wake = Wake::new()?;
        Ok((EventSender { sender, waker: wake.waker() }, Self { receiver, wake }))
    }

    /// Takes all that is there, after waiting for the first for `timeout` at most.
    pub fn take(&mut self, timeout: Duration) -> Vec<Event<B>> {
        if let Err(error) = self.wake.wait(None, Some(timeout)) {
            debug!(error = %chain(&error), "the descriptor of the guests' events can't be waited for");
        }
        self.receiver.try_iter().collect()
    }
}

impl<B: Backend> AsFd for EventBox<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
