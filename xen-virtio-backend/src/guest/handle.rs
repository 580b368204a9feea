//! One guest, as the handshake sees it: a handle to the thread that serves it.

use std::{
    convert::Infallible,
    io,
    ops::RangeInclusive,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use backend_process::chain;
use tracing::error;
use virtio_worker::{Wake, Waker};
use xen_ioreq::{DomId, Liveness};

use super::{
    command::{Attachment, Command},
    error::GuestError,
    map_budget::MapBudget,
    notices::Notices,
    service::Service,
};
use crate::{
    backend::Backend,
    host::{Handles, Host},
    node::DeviceId,
};

/// A guest being served. Dropping it stops its devices and destroys its IOREQ server.
///
/// Its thread may come to wait for storage that doesn't answer: where the guest resets or gives up a device,
/// what is in flight must end first. Whoever asks something of the thread therefore waits for a bounded
/// time only, so that one guest's storage holds up no other guest.
pub struct Guest<B: Backend> {
    domid: DomId,
    commands: Sender<Command<B>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread has let go of everything.
    ended: Receiver<Infallible>,
    /// How long its answers are waited for.
    timeout: Duration,
}

impl<B: Backend> Guest<B> {
    /// Creates the guest's IOREQ server and starts the thread that answers it. What its devices have to say goes to
    /// `notices`. Nothing asked of it takes longer than `timeout`. The other value tells whether the guest still lives.
    ///
    /// # Errors
    /// Xen refuses to make an IOREQ server for the guest, or there is no thread or descriptor to be had.
    pub fn start<H: Host>(
        domid: DomId,
        handles: Handles<H>,
        budget: MapBudget,
        notices: Notices,
        timeout: Duration,
    ) -> Result<(Self, Liveness<H::Model>), GuestError> {
        let service = Service::new(domid, handles, budget, notices)?;
        let liveness = service.liveness();
        let no_thread = |source: io::Error| GuestError::Thread { domid, source };
        let wake = Wake::new().map_err(no_thread)?;
        let (commands, inbox) = mpsc::channel();
        let (running, ended) = mpsc::channel();
        let waker = wake.waker();
        let thread = thread::Builder::new()
            .name(format!("guest-{domid}"))
            .spawn(move || {
                service.run(&inbox, wake);
                drop(running);
            })
            .map_err(no_thread)?;
        Ok((Self { domid, commands, waker, thread: Some(thread), ended, timeout }, liveness))
    }

    /// Attaches a device: when this returns, the guest may touch its window.
    ///
    /// # Errors
    /// The device can't be made, or the guest's thread doesn't answer.
    pub fn attach(&self, attachment: Attachment<B>) -> Result<Arc<B::Figures>, GuestError> {
        self.ask(|reply| Command::Attach(Box::new(attachment), reply))?
    }

    /// Answers a window without a device behind it: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, they would be an external abort in the guest.
    ///
    /// # Errors
    /// Xen refuses the window, or the guest's thread doesn't answer.
    pub fn reserve(&self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        self.ask(|reply| Command::Reserve(window, reply))?
    }

    /// Leaves a window that was reserved, or whose device was detached, to another IOREQ server.
    ///
    /// # Errors
    /// The guest's thread doesn't answer.
    pub fn release(&self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        self.ask(|reply| Command::Release(window, reply))
    }

    /// Lets go of a device, and answers its window as [`Guest::reserve`] does from then on. What it stands on is
    /// closed when [`Detaching::is_done`] says so.
    pub fn detach(&self, id: DeviceId) -> Detaching {
        let (reply, answer) = mpsc::channel();
        // A thread that has ended has let go of everything; the receiver will say so.
        let _ = self.send(Command::Detach(id, reply));
        Detaching(answer)
    }

    /// Logs what each device has done so far.
    pub fn report(&self) {
        let _ = self.send(Command::Report);
    }

    /// Has each device [look](crate::Device::refresh) at what it stands on.
    pub fn refresh(&self) {
        let _ = self.send(Command::Refresh);
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command<B>) -> Result<T, GuestError> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply))?;
        answer.recv_timeout(self.timeout).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.stuck(),
            RecvTimeoutError::Disconnected => self.gone(),
        })
    }

    fn send(&self, command: Command<B>) -> Result<(), GuestError> {
        self.commands.send(command).map_err(|_| self.gone())?;
        self.waker.wake();
        Ok(())
    }

    fn gone(&self) -> GuestError {
        GuestError::Ended { domid: self.domid }
    }

    fn stuck(&self) -> GuestError {
        GuestError::Stuck { domid: self.domid, seconds: self.timeout.as_secs_f32() }
    }
}

/// A device that is being let go of.
#[derive(Debug)]
pub struct Detaching(Receiver<()>);

impl Detaching {
    /// Whether it is done; waits for that no longer than `timeout`.
    pub fn is_done(&self, timeout: Duration) -> bool {
        self.0.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout)
    }
}

impl<B: Backend> Drop for Guest<B> {
    fn drop(&mut self) {
        let _ = self.send(Command::Stop);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(self.timeout) {
            // It lets go of everything as soon as its storage answers.
            error!(domid = self.domid, error = %chain(&self.stuck()), "the guest's devices are not closed yet: its memory stays mapped until their storage answers");
        } else if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(domid = self.domid, "the guest's thread panicked: report this as a bug");
        }
    }
}
