//! Opening what a device is made of, which may block for ever.

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
