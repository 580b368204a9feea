//! A backend's program, from its start to its end.

use std::{fmt, io, path::PathBuf, process::ExitCode, sync::Arc};

use backend_process::{Logging, Notify, Signals, chain, limits, output, signals};
use clap::{Arg, value_parser};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};
use tracing::info;
use xen_store::XenStore;

use super::{
    contact::{Connect, Contact, ContactError, open},
    main_loop::{Daemon, DaemonError, Extras, Metrics, Orders},
    run_dir::{RunDir, RunDirError},
};
use crate::{
    backend::Backend,
    guest::MapBudget,
    handshake::{Handshake, HandshakeError},
    launch::{Exec, Isolation, guest_process},
    transport_kind::{TransportKind, Transports},
};

/// What the operator says of a backend's process.
#[non_exhaustive]
pub struct Options<B: Backend> {
    /// Where the lock is that keeps a second daemon away.
    pub run_dir: PathBuf,
    /// How much of each guest's memory may be mapped.
    pub map_budget: MapBudget,
    /// Where the devices' figures go.
    pub metrics: Option<Box<dyn Metrics<B> + Send>>,
    /// How the devices of guests are reached.
    pub transports: Transports,
    /// How far the processes of guests are confined.
    pub isolation: Isolation,
}

impl<B: Backend> Options<B> {
    /// The defaults, with this run directory.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        let (map_budget, isolation) = (MapBudget::default(), Isolation::default());
        let transports = Transports::default();
        Self { run_dir: run_dir.into(), map_budget, metrics: None, transports, isolation }
    }
}

/// Why a backend's program ends though it was not told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// SIGXFSZ or one of the signals that give orders.
    #[error("can't handle signals")]
    Signals(#[source] io::Error),
    /// Another process serves these devices, or the lock can't be had.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The place for the sockets of the guests' processes can't be made.
    #[error("can't make the directory {} for the sockets of the guests' processes", path.display())]
    Sockets {
        /// It.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no thread or descriptor to connect to xenstored with, or xenstored can't be reached.
    #[error(transparent)]
    Contact(#[from] ContactError),
    /// The main thread can't wait for xenstored.
    #[error("can't wait for xenstored")]
    Poll(#[source] io::Error),
    /// Xenstore can't be watched.
    #[error("can't watch xenstore for devices")]
    Handshake(#[from] HandshakeError),
    /// Later.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// A whole program: logs to the standard error, and serves the devices of `backend`, by a process for each guest, until
/// it is told to stop. Its run directory is `/run/` and the backend's name; its one option, `--transport`, says how guests
/// reach their devices.
///
/// At SIGTERM or SIGINT it ends, and the processes of guests serve on: the next start takes them over. At SIGUSR1 each
/// device logs what it has done, at SIGHUP it looks at what it stands on.
pub fn main<B: Backend>(backend: B) -> ExitCode {
    if let Some(code) = guest_process::<B>() {
        return code;
    }
    let transport = options::<B>().get_matches().remove_one::<TransportKind>(TRANSPORT);
    let logging = match Logging::start() {
        Ok(logging) => logging,
        Err(error) => return output::failure(B::NAME, error),
    };
    let run_dir = PathBuf::from("/run").join(B::NAME);
    let mut options = Options::new(run_dir);
    options.transports = Transports::from(transport.unwrap_or_default());
    let result = run(backend, options);
    logging.end(B::NAME, &result.map_err(Failure))
}

const TRANSPORT: &str = "transport";

/// What a program without options of its own understands.
fn options<B: Backend>() -> clap::Command {
    let transport = Arg::new(TRANSPORT)
        .long(TRANSPORT)
        .value_name("mmio|pci")
        .value_parser(value_parser!(TransportKind))
        .help("How guests reach their devices: each in a virtio-mmio window, or on a PCI bus");
    clap::Command::new(B::NAME).version(B::VERSION).arg(transport)
}

/// Serves the devices of `backend` until it is told to stop, as [`main`](crate::main) does, for a program with options
/// and a log of its own. Such a program calls [`guest_process`](crate::guest_process) before anything else.
///
/// # Errors
/// There is nothing to serve them with, or it was lost while no guest was served.
pub fn run<B: Backend>(backend: B, options: Options<B>) -> Result<(), RunError> {
    signals::survive_failed_writes().map_err(RunError::Signals)?;
    limits::raise_open_files();
    let signals = |which: &[i32]| Signals::new(which).map_err(RunError::Signals);
    let orders = Orders {
        stop: signals(&[signals::SIGTERM, signals::SIGINT])?,
        report: signals(&[signals::SIGUSR1])?,
        resize: signals(&[signals::SIGHUP])?,
    };
    let Options { run_dir, map_budget, metrics, transports, isolation } = options;
    let _run_dir = RunDir::lock(&run_dir, B::NAME)?;
    let connect: Connect<XenStore> = Arc::new(open);
    let Some(store) = first_contact(&connect, &orders.stop)? else {
        info!("told to stop before xenstored answered");
        return Ok(());
    };
    let path = run_dir.join("guests");
    let exec = Exec::new(&path, isolation).map_err(|source| RunError::Sockets { path, source })?;
    let handshake = Handshake::new(store, exec, backend, map_budget)?.with_transports(transports);
    let extras = Extras { metrics, notify: Notify::from_env(), control: Some(run_dir) };
    Ok(Daemon::new(handshake, connect, orders, extras).run()?)
}

/// The connection to xenstored; `None` if the order to stop comes first.
fn first_contact(
    connect: &Connect<XenStore>,
    stop: &Signals,
) -> Result<Option<XenStore>, RunError> {
    let contact = Contact::begin(connect)?;
    loop {
        if stop.take() > 0 {
            return Ok(None);
        }
        if let Some(store) = contact.take() {
            return Ok(Some(store?));
        }
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&contact, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).map_err(|error| RunError::Poll(error.into()))?;
    }
}

/// An error, what caused it, and what to do about it if that was a limit of the system's.
struct Failure(RunError);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = chain(&self.0).to_string();
        match limits::advice(&self.0) {
            Some(advice) if !text.contains(&advice) => write!(f, "{advice}: {text}"),
            _ => f.write_str(&text),
        }
    }
}
