//! The process of one guest, as the handshake sees it.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsFd,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread,
    time::Duration,
};

use backend_process::chain;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use tracing::{debug, error};
use virtio_worker::{Wake, Waker};

use super::event::{Event, EventSender};
use crate::{
    backend::{Backend, Opened},
    guest::{Command, CommandOf, End, Message, MessageOf},
    launch::{Launched, Process},
    node::DeviceNode,
    process::{GuestKey, Line, LineError, Parcel, version},
};

/// The process of one guest. Nothing that is asked of it is waited for: it answers by events. Dropping it leaves the
/// process to the next supervisor.
pub(super) struct Guest<B: Backend> {
    /// `None` when it is dropped.
    outbox: Option<Sender<Parcel>>,
    waker: Waker,
    pid: Option<u32>,
    backend: PhantomData<fn() -> B>,
}

/// What was not attached, and is to be closed: [`Event::Closed`] tells of it.
pub(super) type Left = Box<dyn Send>;

impl<B: Backend> Guest<B> {
    /// Starts the thread that talks with the process. What comes of that goes to `events`.
    ///
    /// # Errors
    /// There is no thread or descriptor to be had. The process finds itself without a supervisor.
    pub(super) fn start(
        key: GuestKey,
        launched: Launched,
        events: EventSender<B>,
    ) -> io::Result<Self> {
        let wake = Wake::new()?;
        let waker = wake.waker();
        let (outbox, parcels) = mpsc::channel();
        let Launched { line, process } = launched;
        let pid = process.pid();
        let link =
            Link { key, line, parcels, wake, events, end: None, is_known: false, held: Vec::new() };
        thread::Builder::new()
            .name(format!("link-{}", key.domid))
            .spawn(move || link.run(process))?;
        Ok(Self { outbox: Some(outbox), waker, pid, backend: PhantomData })
    }

    /// Its number, if it has one of its own.
    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Asks something of it. A process that has ended has let go of everything, and that is told.
    pub(super) fn send(&self, command: &CommandOf<B>) {
        match Parcel::new(command, Vec::new()) {
            Ok(parcel) => drop(self.push(parcel)),
            Err(error) => {
                error!(error = %chain(&error), "a command to a guest's process can't be written: report this as a bug");
            }
        }
    }

    /// Asks it to attach a device. When what was opened for it is closed here, `events` get [`Event::Closed`]. If it can't be asked, what
    /// was opened is given back.
    pub(super) fn attach(
        &self,
        node: DeviceNode,
        config: B::Config,
        opened: Opened<B::Resources>,
        events: EventSender<B>,
    ) -> Result<(), Left> {
        let id = node.id;
        let Opened { resources, files } = opened;
        let command: CommandOf<B> = Command::Attach { node, config, resources, files: files.len() };
        let closed = move || events.send(Event::Closed(id));
        match Parcel::new(&command, files) {
            Ok(parcel) => {
                self.push(parcel.when_closed(closed)).map_err(|parcel| Box::new(parcel) as Left)
            }
            Err(error) => {
                error!(%id, error = %chain(&error), "a device can't be sent to its guest's process: report this as a bug");
                Err(Box::new((command, Parcel::default().when_closed(closed))))
            }
        }
    }

    fn push(&self, parcel: Parcel) -> Result<(), Parcel> {
        match &self.outbox {
            Some(outbox) => outbox.send(parcel).map_err(|error| error.0)?,
            None => return Err(parcel),
        }
        self.waker.wake();
        Ok(())
    }
}

impl<B: Backend> Drop for Guest<B> {
    fn drop(&mut self) {
        drop(self.outbox.take());
        self.waker.wake();
    }
}

/// What the thread has that talks with the process.
struct Link<B: Backend> {
    key: GuestKey,
    line: Line,
    parcels: Receiver<Parcel>,
    wake: Wake,
    events: EventSender<B>,
    /// What the process has said of its end.
    end: Option<End>,
    /// Its version is ours.
    is_known: bool,
    /// What is to be sent when that is known: one of another version would take it for something else.
    held: Vec<Parcel>,
}

/// Why the thread talks no more.
enum Over {
    /// The handshake has no use for it.
    Left,
    /// The process is of this other version.
    OtherVersion(String),
    Lost(LineError),
}

impl<B: Backend> Link<B> {
    /// Talks with the process, and waits for its end.
    fn run(mut self, mut process: Box<dyn Process>) {
        let key = self.key;
        match self.talk() {
            Over::Left => return,
            Over::OtherVersion(version) => {
                self.events.send(Event::OtherVersion(key, version));
            }
            Over::Lost(LineError::Closed) if self.end.is_some() => {}
            // It may have ended, or only closed the connection.
            Over::Lost(LineError::Closed) => process.kill(),
            Over::Lost(error) => {
                let error = chain(&error).to_string();
                error!(%key, error, "the process of a guest doesn't behave, and is killed: the guest may have taken it over");
                process.kill();
                let why =
                    "it was killed, as it did not behave and may have been taken over by the guest";
                self.end = Some(End::Killed(format!("{why}: {error}")));
            }
        }
        let Self { line, parcels, held, events, end, .. } = self;
        // It finds itself without a supervisor, if it lives.
        drop(line);
        let cause = process.wait();
        // Before its end is told: nobody can use the files that wait to be sent.
        drop((parcels, held));
        let end = match (end, cause) {
            (Some(end), _) => end,
            (None, Some(cause)) => End::Killed(format!("it was ended by {cause}")),
            (None, None) => End::Killed("it has ended and does not say why".to_owned()),
        };
        // After all that it has told.
        events.send_of_guest(Event::Ended(key, end));
    }

    fn talk(&mut self) -> Over {
        loop {
            let left = self.take_parcels();
            match self.exchange() {
                Ok(None) => {}
                Ok(Some(version)) => return Over::OtherVersion(version),
                Err(error) => return Over::Lost(error),
            }
            if left && self.line.is_flushed() {
                return Over::Left;
            }
            if let Err(error) = self.wait() {
                return Over::Lost(LineError::Io(error.into()));
            }
        }
    }

    /// False if more may come.
    fn take_parcels(&mut self) -> bool {
        loop {
            match self.parcels.try_recv() {
                Ok(parcel) if self.is_known => self.line.push(parcel),
                Ok(parcel) => self.held.push(parcel),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Sends what can be sent, and takes what has come. `Some` is another version than this.
    fn exchange(&mut self) -> Result<Option<String>, LineError> {
        if !self.is_known {
            match self.line.receive::<String>()? {
                Some((its, _)) if its == version::<B>() => {
                    self.is_known = true;
                    self.held.drain(..).for_each(|parcel| self.line.push(parcel));
                }
                Some((its, _)) => return Ok(Some(its)),
                None => return self.line.flush().map(|()| None),
            }
        }
        while let Some((message, _)) = self.line.receive::<MessageOf<B>>()? {
            match message {
                Message::Ending(end) => self.end = Some(end),
                message => {
                    self.events.send_of_guest(Event::Told(self.key, Box::new(message)));
                }
            }
        }
        match self.line.flush() {
            // It may have said something before, which comes next.
            Err(LineError::Closed) => Ok(None),
            flushed => flushed.map(|()| None),
        }
    }

    fn wait(&mut self) -> Result<(), Errno> {
        let wake = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
        let line = PollFd::new(&self.line, self.line.interest());
        match poll(&mut [line, wake], None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        // Takes the wake-up, if that was it.
        if let Err(error) = self.wake.wait(None, Some(Duration::ZERO)) {
            debug!(error = %chain(&error), "the descriptor of the thread that talks with a guest's process can't be waited for");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};

    use super::*;
    use crate::{
        handshake::event::EventBox,
        inline::{Inline, InlineDevices},
        node::{DeviceType, Sharing},
    };

    struct Idle;

    impl VirtioDevice for Idle {
        fn device_type(&self) -> u32 {
            4
        }
        fn queue_max_sizes(&self) -> &[u16] {
            &[16]
        }
    }

    impl Inline for Idle {
        const NAME: &'static str = "idle";
        const DEVICE_TYPE: DeviceType = DeviceType(4);

        fn build(_: Vec<std::os::fd::OwnedFd>) -> Self {
            Self
        }
        fn request<M: GuestAddressSpace>(&mut self, _: u16, _: &Chain<M>) -> Option<u32> {
            Some(0)
        }
    }

    type Devices = InlineDevices<Idle>;

    /// A process that can be killed only.
    struct Killable(Arc<AtomicBool>);

    impl Process for Killable {
        fn pid(&self) -> Option<u32> {
            None
        }
        fn wait(&mut self) -> Option<String> {
            Some("signal 9 (SIGKILL)".to_owned())
        }
        fn kill(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_process_that_sends_without_end_is_killed_and_its_end_says_why() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let killed = Arc::new(AtomicBool::new(false));
        let process = Box::new(Killable(Arc::clone(&killed)));
        let launched = Launched { line: Line::to_guest(pair.0), process };
        let key = GuestKey { domid: 7, sharing: Sharing::Grant };
        let (sender, mut events) = EventBox::<Devices>::channel().unwrap();
        let _guest = Guest::start(key, launched, sender).unwrap();
        let flood = thread::spawn(move || {
            let mut line = Line::to_supervisor(pair.1);
            line.push(Parcel::new(&version::<Devices>(), Vec::new()).unwrap());
            while line.flush().is_ok() {
                let message: MessageOf<Devices> = Message::AllFigures;
                line.push(Parcel::new(&message, Vec::new()).unwrap());
            }
        });
        let end = loop {
            let ended = events.take().into_iter().find_map(|event| match event {
                Event::Ended(its, end) if its == key => Some(end),
                _ => None,
            });
            if let Some(end) = ended {
                break end;
            }
            thread::sleep(Duration::from_millis(1));
        };
        flood.join().unwrap();
        assert!(killed.load(Ordering::Relaxed));
        assert!(
            matches!(&end, End::Killed(why) if why.contains("more than 2048 packets")),
            "{end:?}"
        );
    }
}
