//! The thread of a guest's process that talks with supervisors: with one at a time, and with the next when it is gone.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, Sender, TryRecvError},
};

use backend_process::chain;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{SocketFlags, accept_with, sockopt::socket_peercred},
};
use tracing::{debug, error, info, warn};
use virtio_worker::Wake;

use super::line::{Line, LineError, Parcel};
use crate::{
    backend::Backend,
    guest::{GuestWaker, Input, Message, Report},
};

/// What the thread has.
pub(super) struct Conversation<B: Backend> {
    /// Where supervisors connect.
    pub(super) listener: OwnedFd,
    /// The present one.
    pub(super) line: Option<Line>,
    /// How many there were.
    pub(super) supervisors: u64,
    /// It was told what is served. Until then it is told nothing else.
    pub(super) is_greeted: bool,
    /// Woken when there are reports.
    pub(super) wake: Wake,
    pub(super) reports: Receiver<Report<B>>,
    /// To the guest's thread.
    pub(super) inputs: Sender<Input<B>>,
    pub(super) waker: GuestWaker,
}

impl<B: Backend> Conversation<B> {
    /// Goes on until the guest's thread and all devices have ended, and the last report was sent.
    pub(super) fn run(mut self) {
        self.tell(Input::Connected(self.supervisors));
        let mut more = true;
        loop {
            more = more && self.take_reports();
            if let Err(error) = self.exchange() {
                self.disconnect(&error);
            }
            if !more && self.line.as_ref().is_none_or(Line::is_flushed) {
                return;
            }
            if let Err(error) = self.wait() {
                error!(error = %chain(&error), "the guest's process can't wait for its supervisor, and is reached by none from now on");
                return;
            }
        }
    }

    fn tell(&self, input: Input<B>) {
        if self.inputs.send(input).is_ok() {
            self.waker.wake();
        }
    }

    /// False if the last one was taken.
    fn take_reports(&mut self) -> bool {
        loop {
            let report = match self.reports.try_recv() {
                Ok(report) => report,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            let is_last = matches!(report.message, Message::Ending(_));
            self.is_greeted |= is_last || report.supervisor == Some(self.supervisors);
            if let Some(line) = self.line.as_mut().filter(|_| self.is_greeted) {
                match Parcel::new(&report.message, Vec::new()) {
                    Ok(parcel) => line.push(parcel),
                    Err(error) => {
                        error!(error = %chain(&error), "a message to the supervisor can't be written: report this as a bug");
                    }
                }
            }
            if is_last {
                return false;
            }
        }
    }

    fn exchange(&mut self) -> Result<(), LineError> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut commands = Vec::new();
        let result = loop {
            match line.receive() {
                Ok(Some((command, files))) => commands.push(Input::Command(command, files)),
                Ok(None) => break line.flush(),
                Err(error) => break Err(error),
            }
        };
        commands.into_iter().for_each(|command| self.tell(command));
        result
    }

    fn disconnect(&mut self, error: &LineError) {
        match error {
            LineError::Closed => info!(
                "the supervisor has ended: the guest's devices are served on, and are taken over by the next one"
            ),
            error => {
                warn!(error = %chain(error), "the connection to the supervisor failed: the guest's devices are served on, and are taken over by the next one");
            }
        }
        self.line = None;
        self.tell(Input::Disconnected);
    }

    fn wait(&mut self) -> Result<(), Errno> {
        let connected = {
            let line = self.line.as_ref().map(|line| PollFd::new(line, line.interest()));
            let listener = PollFd::new(&self.listener, PollFlags::IN);
            let mut fds: Vec<_> =
                [listener, PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)]
                    .into_iter()
                    .chain(line)
                    .collect();
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(()),
                Err(error) => return Err(error),
            }
            !fds[0].revents().is_empty()
        };
        // Takes the wake-up, if that was it.
        if let Err(error) = self.wake.wait(None, Some(std::time::Duration::ZERO)) {
            debug!(error = %chain(&error), "the descriptor of the thread that talks with the supervisor can't be waited for");
        }
        if connected {
            self.accept();
        }
        Ok(())
    }

    /// The new one has the lock that makes it the only one: the one before is gone, or doesn't know yet.
    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(error) => {
                debug!(%error, "a supervisor has connected and disconnected at once");
                return;
            }
        };
        let peer = match socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() || peer.uid == rustix::process::geteuid() => peer.pid,
            peer => {
                let uid = peer.ok().map(|peer| peer.uid.as_raw());
                warn!(uid, "a connection of a process that doesn't run as root was refused");
                return;
            }
        };
        info!(pid = peer.as_raw_nonzero().get(), "another supervisor takes the guest over");
        let mut line = Line::to_supervisor(socket);
        if let Ok(version) = Parcel::new(&super::version::<B>(), Vec::new()) {
            line.push(version);
        }
        self.line = Some(line);
        self.supervisors += 1;
        self.is_greeted = false;
        self.tell(Input::Connected(self.supervisors));
    }
}
