//! The operator's side.

use std::{
    fmt, io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use backend_process::chain;
use rustix::net::SocketAddrUnix;

use super::{
    message::{Reply, ReplyOf, Request, RequestOf},
    server::SOCKET,
    status::StatusOf,
};
use crate::{
    backend::Backend,
    node::DeviceId,
    process::{Line, LineError, Parcel, await_flushed, await_message, connect_to, version},
};

/// How long the supervisor may take for an answer. It gives up on the process of a guest earlier.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error("{program} does not run (nobody listens at {}): start it, or name its directory by --run-dir", path.display())]
    NotRunning {
        /// The program.
        program: &'static str,
        /// The socket.
        path: PathBuf,
    },
    /// It can't be connected to.
    #[error("can't connect to {}{}", path.display(), Advice(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor is of another version.
    #[error(
        "the daemon that runs is {theirs}, and this is {ours}: restart the daemon, or use its own program"
    )]
    OtherVersion {
        /// Its.
        theirs: String,
        /// This program's.
        ours: String,
    },
    /// The connection ended, or no answer came in time.
    #[error("no answer of the daemon: {0}")]
    NoAnswer(String),
    /// The request was refused, or has failed, for this reason.
    #[error("{0}")]
    Failed(String),
}

/// What to do about it, if that is known.
struct Advice<'a>(&'a io::Error);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind() {
            io::ErrorKind::PermissionDenied => f.write_str(": run this as root"),
            _ => Ok(()),
        }
    }
}

impl From<LineError> for ClientError {
    fn from(error: LineError) -> Self {
        match error {
            LineError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                Self::NoAnswer(format!("it took longer than {} s", PATIENCE.as_secs()))
            }
            error => Self::NoAnswer(chain(&error).to_string()),
        }
    }
}

/// Asks the supervisor of a backend. Each question is a connection of its own.
#[derive(Debug)]
pub struct Client<B> {
    socket: PathBuf,
    backend: PhantomData<fn() -> B>,
}

impl<B: Backend> Client<B> {
    /// Asks the supervisor with this run directory.
    pub fn new(run_dir: &Path) -> Self {
        Self { socket: run_dir.join(SOCKET), backend: PhantomData }
    }

    /// What there is, and what it has done so far.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<StatusOf<B>, ClientError> {
        let (mut devices, mut unknown) = (Vec::new(), Vec::new());
        self.ask(Request::Status, |reply| match reply {
            Reply::Device(device) => devices.push(*device),
            Reply::Unknown(domid) => unknown.push(domid),
            Reply::Done(_) => {}
        })?;
        Ok(StatusOf::<B> { devices, unknown })
    }

    /// Has a device do something. What has come of it, in words.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn order(&self, id: DeviceId, order: B::Order) -> Result<String, ClientError> {
        self.ask(Request::Order(id, order), |_| {})
    }

    /// Has the log of the supervisor, and of each guest's process, contain what this filter lets pass
    /// ([`Logging::set_filter`](backend_process::Logging::set_filter)).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn log_filter(&self, filter: &str) -> Result<String, ClientError> {
        self.ask(Request::LogFilter(filter.to_owned()), |_| {})
    }

    fn ask(
        &self,
        request: RequestOf<B>,
        mut take: impl FnMut(ReplyOf<B>),
    ) -> Result<String, ClientError> {
        let path = || self.socket.clone();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { program: B::NAME, path: path() }
            }
            _ => ClientError::Connect { path: path(), source },
        };
        let address = SocketAddrUnix::new(&self.socket).map_err(|error| failed(error.into()))?;
        let mut line = Line::to_guest(connect_to(&address).map_err(failed)?);
        let (theirs, _) = await_message::<String>(&mut line, PATIENCE)?;
        let ours = version::<B>();
        if theirs != ours {
            return Err(ClientError::OtherVersion { theirs, ours });
        }
        line.push(Parcel::new(&request, Vec::new()).map_err(LineError::from)?);
        await_flushed(&mut line, PATIENCE)?;
        loop {
            match await_message::<ReplyOf<B>>(&mut line, PATIENCE)?.0 {
                Reply::Done(result) => return result.map_err(ClientError::Failed),
                reply => take(reply),
            }
        }
    }
}
