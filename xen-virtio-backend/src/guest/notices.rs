//! What the guests' threads have to say of their devices where the toolstack looks: xenstore is the main thread's.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::mpsc::{self, Receiver, Sender},
    time::Duration,
};

use backend_process::chain;
use tracing::debug;
use virtio_worker::{Wake, Waker};

use crate::node::DeviceId;

/// For what the operator should find in xenstore. Each device tells each thing once, so that no guest fills the box.
#[derive(Clone, Debug)]
pub struct Notices {
    sender: Sender<(DeviceId, String)>,
    waker: Waker,
}

/// What has been said and not been taken yet.
#[derive(Debug)]
pub struct NoticeBox {
    receiver: Receiver<(DeviceId, String)>,
    wake: Wake,
}

impl Notices {
    /// Both ends.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn channel() -> io::Result<(Self, NoticeBox)> {
        let (sender, receiver) = mpsc::channel();
        let wake = Wake::new()?;
        Ok((Self { sender, waker: wake.waker() }, NoticeBox { receiver, wake }))
    }

    /// Has `text` written to the error nodes of a device that is served.
    pub fn tell(&self, id: DeviceId, text: &str) {
        if self.sender.send((id, text.to_owned())).is_ok() {
            self.waker.wake();
        }
    }
}

impl NoticeBox {
    /// Takes all that is there. The descriptor is no longer readable then.
    pub(crate) fn take(&mut self) -> Vec<(DeviceId, String)> {
        if let Err(error) = self.wake.wait(None, Some(Duration::ZERO)) {
            debug!(error = %chain(&error), "the eventfd of the guests' threads can't be read");
        }
        self.receiver.try_iter().collect()
    }
}

impl AsFd for NoticeBox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
