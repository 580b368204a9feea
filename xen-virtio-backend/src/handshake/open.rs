//! Opening what a device is made of, and closing it, which both may block for ever.

use std::{io, sync::Arc, thread};

use super::{
    event::{Event, EventSender},
    stage::Read,
};
use crate::{
    backend::{Backend, Opened},
    close,
    node::DeviceId,
    refusal::Refusal,
};

/// Starts a thread that opens a device and tells of it by [`Event::Opened`], whatever happens.
pub(super) fn open<B: Backend>(
    backend: Arc<B>,
    (node, config): Read<B>,
    events: EventSender<B>,
) -> io::Result<()> {
    thread::Builder::new().name("open".into()).spawn(move || {
        let mut teller = Teller { id: node.id, events, opened: None };
        teller.opened = Some(backend.open(&node, &config));
    })?;
    Ok(())
}

/// Closes what was opened for a device, and tells of it by [`Event::Closed`].
pub(super) fn close<B: Backend>(id: DeviceId, left: impl Send + 'static, events: EventSender<B>) {
    close::close(Closing { id, events, left: Some(left) });
}

/// What is to be closed, and who is told of it then.
struct Closing<B: Backend, T> {
    id: DeviceId,
    events: EventSender<B>,
    left: Option<T>,
}

impl<B: Backend, T> Drop for Closing<B, T> {
    fn drop(&mut self) {
        drop(self.left.take());
        self.events.send(Event::Closed(self.id));
    }
}

/// Tells the outcome when the thread is done, or has panicked.
struct Teller<B: Backend> {
    id: DeviceId,
    events: EventSender<B>,
    opened: Option<Result<Opened<B::Resources>, Refusal>>,
}

impl<B: Backend> Drop for Teller<B> {
    fn drop(&mut self) {
        let panicked =
            || Err(Refusal::new("the thread that opens the device panicked: report this as a bug"));
        let opened = self.opened.take().unwrap_or_else(panicked);
        self.events.send(Event::Opened(self.id, opened));
    }
}
