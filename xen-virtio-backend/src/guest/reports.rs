//! The way of the guest's thread to the supervisor.

use std::sync::mpsc::{self, Receiver, Sender};

use virtio_worker::Waker;

use super::message::{Message, MessageOf};
use crate::{backend::Backend, notices::Notices};

/// A message, and which supervisor it is the first one to, if it is one's first.
pub(crate) struct Report<B: Backend> {
    pub(crate) supervisor: Option<u64>,
    pub(crate) message: MessageOf<B>,
}

/// Where the guest's thread and its devices leave messages to the supervisor. Nobody waits for it.
pub(crate) struct Reports<B: Backend> {
    sender: Sender<Report<B>>,
    waker: Waker,
}

impl<B: Backend> Clone for Reports<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waker: self.waker.clone() }
    }
}

impl<B: Backend> Reports<B> {
    /// Both ends. `waker` wakes who has the other one.
    pub(crate) fn channel(waker: Waker) -> (Self, Receiver<Report<B>>) {
        let (sender, receiver) = mpsc::channel();
        (Self { sender, waker }, receiver)
    }

    pub(crate) fn send(&self, message: MessageOf<B>) {
        self.push(Report { supervisor: None, message });
    }

    /// The first message to the nth supervisor.
    pub(crate) fn greet(&self, supervisor: u64, message: MessageOf<B>) {
        self.push(Report { supervisor: Some(supervisor), message });
    }

    fn push(&self, report: Report<B>) {
        // The other end stays until this one is gone.
        if self.sender.send(report).is_ok() {
            self.waker.wake();
        }
    }

    /// What a device tells the operator by.
    pub(super) fn notices(&self) -> Notices {
        let reports = self.clone();
        Notices::new(move |id, text| reports.send(Message::Notice(id, text)))
    }
}
