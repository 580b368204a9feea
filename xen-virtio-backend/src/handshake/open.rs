//! Opening what a device is made of, and closing it, which both may block for ever.

use std::{io, sync::Arc, thread};

use crate::{
    backend::{Backend, Refusal},
    guest::{Event, EventSender},
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

/// Starts a thread that closes what was opened for a device, and tells of it by [`Event::Closed`]. Without a thread it
/// is closed here.
pub(super) fn close<B: Backend>(id: DeviceId, resources: B::Resources, events: EventSender<B>) {
    let opened = Opened { id, events, resources: Some(resources) };
    // If it fails, the closure is dropped, and what it holds.
    let _ = thread::Builder::new().name("close".into()).spawn(move || drop(opened));
}

/// What is to be closed, and who is told of it then.
struct Opened<B: Backend> {
    id: DeviceId,
    events: EventSender<B>,
    resources: Option<B::Resources>,
}

impl<B: Backend> Drop for Opened<B> {
    fn drop(&mut self) {
        drop(self.resources.take());
        self.events.send(Event::Closed(self.id));
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
