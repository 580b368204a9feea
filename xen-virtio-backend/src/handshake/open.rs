//! Opening what a device is made of, and closing it, which both may block for ever.

use std::{io, sync::Arc, thread};

use crate::{
    backend::{Backend, Refusal},
    guest::{Event, EventSender, drop_elsewhere},
    node::DeviceId,
};

use super::stage::Read;

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

/// Closes what was opened for a device on a thread of its own, and tells of it by [`Event::Detached`].
pub(super) fn close<B: Backend>(id: DeviceId, opened: B::Resources, events: EventSender<B>) {
    drop_elsewhere(Opened::<B> { opened: Some(opened), id, events });
}

/// What is closed, and who is told of it then.
struct Opened<B: Backend> {
    opened: Option<B::Resources>,
    id: DeviceId,
    events: EventSender<B>,
}

impl<B: Backend> Drop for Opened<B> {
    fn drop(&mut self) {
        drop(self.opened.take());
        self.events.send(Event::Detached(self.id));
    }
}

/// Tells the outcome when the thread is done, or has panicked.
struct Teller<B: Backend> {
    id: DeviceId,
    events: EventSender<B>,
    opened: Option<Result<B::Resources, Refusal>>,
}

impl<B: Backend> Drop for Teller<B> {
    fn drop(&mut self) {
        let panicked =
            || Err(Refusal::new("the thread that opens the device panicked: report this as a bug"));
        let opened = self.opened.take().unwrap_or_else(panicked);
        self.events.send(Event::Opened(self.id, opened));
    }
}
