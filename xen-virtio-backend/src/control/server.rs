//! The supervisor's side: a thread that hears one operator after the other, and hands their requests to the main loop.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use backend_process::chain;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    net::{SocketAddrUnix, SocketFlags, accept_with, sockopt::socket_peercred},
};
use tracing::{debug, warn};
use virtio_worker::{Wake, Waker};

use super::{
    message::{Reply, ReplyOf, RequestOf},
    status::StatusOf,
};
use crate::{
    backend::Backend,
    process::{Line, LineError, Parcel, await_flushed, await_message, listen_at, version},
};

/// The socket's name in the run directory.
pub(super) const SOCKET: &str = "control";
/// How long an operator's program may take to say what it wants, and to take the answer. Others wait meanwhile.
const CLIENT: Duration = Duration::from_secs(2);
/// How long the main loop, and a guest's process that it asks, may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A request, and where the answer goes to.
pub(crate) struct Asked<B: Backend> {
    pub(crate) request: RequestOf<B>,
    pub(crate) replies: Replies<B>,
}

/// Where the answer of a request goes to. Without a last reply the operator is told that there is none.
pub(crate) struct Replies<B: Backend>(Sender<ReplyOf<B>>);

impl<B: Backend> Replies<B> {
    /// Both ends.
    pub(crate) fn channel() -> (Self, Receiver<ReplyOf<B>>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    pub(crate) fn send_status(&self, status: &StatusOf<B>) {
        let devices = status.devices.iter().cloned();
        devices.for_each(|device| self.send(Reply::Device(Box::new(device))));
        status.unknown.iter().for_each(|domid| self.send(Reply::Unknown(*domid)));
        self.done(Ok(String::new()));
    }

    fn send(&self, reply: ReplyOf<B>) {
        // Nobody may wait any more.
        let _ = self.0.send(reply);
    }

    pub(crate) fn done(&self, result: Result<String, String>) {
        self.send(Reply::Done(result));
    }
}

/// The control socket. Its descriptor is readable when there are requests.
pub(crate) struct Server<B: Backend> {
    asked: Receiver<Asked<B>>,
    wake: Wake,
}

impl<B: Backend> Server<B> {
    /// Listens in `run_dir`, which nobody else uses.
    ///
    /// # Errors
    /// There is no descriptor or thread to be had, or the socket can't be made.
    pub(crate) fn start(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        match fs::remove_file(&path) {
            // Of a supervisor that has ended.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = listen_at(&SocketAddrUnix::new(&path)?)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let wake = Wake::new()?;
        let (sender, asked) = mpsc::channel();
        let desk = Desk { listener, asked: sender, waker: wake.waker() };
        thread::Builder::new().name("control".into()).spawn(move || desk.run())?;
        Ok(Self { asked, wake })
    }

    /// What was asked since the last call.
    pub(crate) fn take(&mut self) -> Vec<Asked<B>> {
        if let Err(error) = self.wake.wait(None, Some(Duration::ZERO)) {
            debug!(error = %chain(&error), "the descriptor of the control socket's thread can't be waited for");
        }
        self.asked.try_iter().collect()
    }
}

impl<B: Backend> AsFd for Server<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// What the thread has.
struct Desk<B: Backend> {
    listener: OwnedFd,
    asked: Sender<Asked<B>>,
    waker: Waker,
}

/// The main loop has ended.
struct Ended;

impl<B: Backend> Desk<B> {
    fn run(self) {
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            if let Err(error) = retry_on_intr(|| poll(&mut fds, None)) {
                warn!(%error, "the control socket can't be waited for, and nobody is heard any more");
                return;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(error) => {
                    debug!(%error, "a connection to the control socket can't be accepted");
                    // No descriptor is to be had, perhaps: it isn't tried without a pause.
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            match socket_peercred(&socket) {
                Ok(peer) if peer.uid.is_root() || peer.uid == rustix::process::geteuid() => {}
                peer => {
                    let uid = peer.ok().map(|peer| peer.uid.as_raw());
                    debug!(
                        uid,
                        "a connection to the control socket was refused, as it isn't root's"
                    );
                    continue;
                }
            }
            match self.serve(socket) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    debug!(error = %chain(&error), "an operator's connection failed");
                }
                Err(Ended) => return,
            }
        }
    }

    /// Hears one operator.
    fn serve(&self, socket: OwnedFd) -> Result<Result<(), LineError>, Ended> {
        let mut line = Line::to_guest(socket);
        let request = greet::<B>(&mut line);
        let request = match request {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let (replies, answers) = Replies::channel();
        self.asked.send(Asked { request, replies }).map_err(|_| Ended)?;
        self.waker.wake();
        Ok(answer::<B>(&mut line, &answers))
    }
}

fn greet<B: Backend>(line: &mut Line) -> Result<RequestOf<B>, LineError> {
    line.push(Parcel::new(&version::<B>(), Vec::new())?);
    await_flushed(line, CLIENT)?;
    Ok(await_message(line, CLIENT)?.0)
}

fn answer<B: Backend>(line: &mut Line, replies: &Receiver<ReplyOf<B>>) -> Result<(), LineError> {
    loop {
        let reply = replies.recv_timeout(ANSWER).unwrap_or_else(|error| {
            Reply::Done(Err(match error {
                RecvTimeoutError::Timeout => {
                    format!("it takes longer than {} s: see the log", ANSWER.as_secs())
                }
                RecvTimeoutError::Disconnected => {
                    "the process of the guest has ended, or the daemon ends: see the log".to_owned()
                }
            }))
        });
        let last = matches!(reply, Reply::Done(_));
        line.push(Parcel::new(&reply, Vec::new())?);
        await_flushed(line, CLIENT)?;
        if last {
            return Ok(());
        }
    }
}
