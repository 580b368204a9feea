//! One guest, as the handshake sees it: a handle to the thread that serves it.

use std::{
    io,
    sync::mpsc::{self, SendError, Sender},
    thread,
};

use tracing::error;
use virtio_worker::{Wake, Waker};
use xen_ioreq::{DomId, Liveness};

use super::{
    command::{Attachment, Command},
    error::GuestError,
    event::{End, Event, EventSender},
    map_budget::MapBudget,
    service::Service,
};
use crate::{
    backend::Backend,
    host::{Handles, Host},
};

/// A guest being served. Nothing that is asked of it is waited for: it answers by events. Dropping it has its thread
/// stop the devices, destroy the guest's IOREQ server and end, which [`Event::Ended`] tells; where storage doesn't
/// answer, that may take a while.
pub struct Guest<B: Backend> {
    commands: Sender<Command<B>>,
    waker: Waker,
}

impl<B: Backend> Guest<B> {
    /// Creates the guest's IOREQ server and starts the thread that answers it. What comes of that goes to `events`.
    /// The other value tells whether the guest still lives.
    ///
    /// # Errors
    /// Xen refuses to make an IOREQ server for the guest, or there is no thread or descriptor to be had. Then there
    /// are no events.
    pub fn start<H: Host>(
        domid: DomId,
        handles: Handles<H>,
        budget: MapBudget,
        events: EventSender<B>,
    ) -> Result<(Self, Liveness<H::Model>), GuestError> {
        let no_thread = |source: io::Error| GuestError::Thread { domid, source };
        let service = Service::new(domid, handles, budget, events.clone())?;
        let liveness = service.liveness();
        let wake = Wake::new().map_err(no_thread)?;
        let waker = wake.waker();
        let (commands, inbox) = mpsc::channel();
        let (begin, begun) = mpsc::sync_channel::<EventSender<B>>(1);
        thread::Builder::new()
            .name(format!("guest-{domid}"))
            .spawn(move || {
                let Ok(events) = begun.recv() else { return };
                let mut teller = Teller { domid, events, end: End::Failed };
                teller.end = service.run(&inbox, wake);
            })
            .map_err(no_thread)?;
        // From here on it tells of its end.
        let _ = begin.send(events);
        Ok((Self { commands, waker }, liveness))
    }

    /// Asks something of it. A thread that has ended has let go of everything, and told so.
    pub fn send(&self, command: Command<B>) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }

    /// Asks it to attach a device. If its thread has ended, `attachment` is given back, to be closed.
    pub fn attach(&self, attachment: Box<Attachment<B>>) -> Result<(), Box<Attachment<B>>> {
        match self.commands.send(Command::Attach(attachment)) {
            Err(SendError(Command::Attach(attachment))) => Err(attachment),
            _ => {
                self.waker.wake();
                Ok(())
            }
        }
    }
}

impl<B: Backend> Drop for Guest<B> {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

/// Tells of the thread's end, however it ends.
struct Teller<B: Backend> {
    domid: DomId,
    events: EventSender<B>,
    end: End,
}

impl<B: Backend> Drop for Teller<B> {
    fn drop(&mut self) {
        if thread::panicking() {
            error!(
                domid = self.domid,
                "the guest's thread panicked, and the guest is no longer served: `xl destroy` and `xl create` it; report this as a bug"
            );
        }
        self.events.send(Event::Ended(self.domid, self.end));
    }
}
