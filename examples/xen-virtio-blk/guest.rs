//! One guest, as the handshake sees it: a thread that is asked things.

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

use backend_process::{chain, limits};
use tracing::error;
use virtio_worker::{Wake, Waker};
use xen_ioreq::{DomId, Liveness};

use crate::{
    device_id::DeviceId,
    disk::DiskSpec,
    figures::Figures,
    map_budget::MapBudget,
    notices::Notices,
    platform::{Handles, Platform},
    service::Service,
    storage::Storage,
};

/// Why a disk can't be attached to a guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The kernel's devices can't be opened for it.
    #[error(
        "domain {domid}: can't open /dev/xen/privcmd, evtchn or gntdev for it: {}",
        advice(source, "run `xen-virtio-blk check`")
    )]
    Open {
        /// The guest.
        domid: DomId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The IOREQ server can't be made or told of the window.
    #[error(transparent)]
    Ioreq(#[from] xen_ioreq::Error),
    /// The disk's own settings are at odds.
    #[error("{id}: {message}")]
    Disk {
        /// The disk.
        id: DeviceId,
        /// What is wrong, and where.
        message: String,
    },
    /// The guest's thread waits for storage.
    #[error(
        "domain {domid}: the thread that serves it did not answer within {seconds} s, as the storage of one \
         of its disks does not: check the storage of its images"
    )]
    Stuck {
        /// The guest.
        domid: DomId,
        /// How long it was waited for.
        seconds: f32,
    },
    /// No thread can be made for the guest, or no descriptor to wake it by.
    #[error(
        "domain {domid}: can't start the thread that serves it: {}",
        advice(
            source,
            "raise the limit of threads (TasksMax= of the systemd unit of xen-virtio-blk, or `ulimit -u`)"
        )
    )]
    Thread {
        /// The guest.
        domid: DomId,
        /// What the kernel said.
        source: io::Error,
    },
    /// The guest's thread has ended before the guest.
    #[error(
        "domain {domid}: the thread that serves it has ended: the log says why; `xl destroy` and `xl create` the guest"
    )]
    Ended {
        /// The guest.
        domid: DomId,
    },
}

/// What to do about an error of the kernel's: what its limit asks for, or otherwise this.
fn advice(source: &io::Error, otherwise: &str) -> String {
    limits::advice(source).unwrap_or_else(|| otherwise.to_owned())
}

/// What the guest's thread is asked to do.
pub(crate) enum Command {
    Attach(Box<(DiskSpec, Storage)>, Sender<Result<Arc<Figures>, GuestError>>),
    Reserve(RangeInclusive<u64>, Sender<Result<(), GuestError>>),
    Release(RangeInclusive<u64>, Sender<()>),
    Detach(DeviceId, Sender<()>),
    Report,
    RefreshCapacities,
    Stop,
}

/// A guest being served. Dropping it stops its disks and destroys its IOREQ server.
///
/// Its thread may come to wait for storage that doesn't answer: where the guest resets or gives up a disk,
/// what is in flight must end first. Whoever asks something of the thread therefore waits for a bounded
/// time only, so that one guest's storage holds up no other guest.
pub struct Guest {
    domid: DomId,
    commands: Sender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread has let go of everything.
    ended: Receiver<Infallible>,
    patience: Duration,
}

impl Guest {
    /// Creates the guest's IOREQ server and starts the thread that answers it. What its disks have to say goes to
    /// `notices`. Nothing asked of it takes longer than `patience`. The other value tells whether the guest still lives.
    pub fn start<P: Platform>(
        domid: DomId,
        handles: Handles<P>,
        budget: MapBudget,
        notices: Notices,
        patience: Duration,
    ) -> Result<(Self, Liveness<P::Model>), GuestError> {
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
        Ok((Self { domid, commands, waker, thread: Some(thread), ended, patience }, liveness))
    }

    /// Attaches a disk: when this returns, the guest may touch its window.
    pub fn attach(&self, spec: DiskSpec, storage: Storage) -> Result<Arc<Figures>, GuestError> {
        self.ask(|reply| Command::Attach(Box::new((spec, storage)), reply))?
    }

    /// Answers a window without a device behind it: reads give all ones, which no driver takes for a
    /// virtio device. Unanswered, they would be an external abort in the guest.
    pub fn reserve(&self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        self.ask(|reply| Command::Reserve(window, reply))?
    }

    /// Leaves a window that was reserved, or whose disk was detached, to another IOREQ server.
    pub fn release(&self, window: RangeInclusive<u64>) -> Result<(), GuestError> {
        self.ask(|reply| Command::Release(window, reply))
    }

    /// Lets go of a disk, and answers its window as [`Guest::reserve`] does from then on. The image is closed when
    /// [`Detaching::is_done`] says so.
    pub fn detach(&self, id: DeviceId) -> Detaching {
        let (reply, answer) = mpsc::channel();
        // A thread that has ended has let go of everything; the receiver will say so.
        let _ = self.send(Command::Detach(id, reply));
        Detaching(answer)
    }

    /// Logs what each disk has done so far.
    pub fn report(&self) {
        let _ = self.send(Command::Report);
    }

    /// Has each disk take on the size that its image has now.
    pub fn refresh_capacities(&self) {
        let _ = self.send(Command::RefreshCapacities);
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, GuestError> {
        let (reply, answer) = mpsc::channel();
        self.send(command(reply))?;
        answer.recv_timeout(self.patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => self.stuck(),
            RecvTimeoutError::Disconnected => self.gone(),
        })
    }

    fn send(&self, command: Command) -> Result<(), GuestError> {
        self.commands.send(command).map_err(|_| self.gone())?;
        self.waker.wake();
        Ok(())
    }

    fn gone(&self) -> GuestError {
        GuestError::Ended { domid: self.domid }
    }

    fn stuck(&self) -> GuestError {
        GuestError::Stuck { domid: self.domid, seconds: self.patience.as_secs_f32() }
    }
}

/// A disk that is being let go of.
pub struct Detaching(Receiver<()>);

impl Detaching {
    /// Whether its image is closed; waits for that no longer than `patience`.
    pub fn is_done(&self, patience: Duration) -> bool {
        self.0.recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.send(Command::Stop);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(self.patience) {
            // It lets go of everything as soon as its storage answers.
            error!(domid = self.domid, error = %chain(&self.stuck()), "the guest's disks are not closed yet: its memory stays mapped until their storage answers");
        } else if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(domid = self.domid, "the guest's thread panicked: report this as a bug");
        }
    }
}
