//! The socket: one frontend after the other, until the program is told to stop.

use std::{
    fs, io,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use backend_process::{Notify, Signals, chain, limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{error, info, warn};
use virtio_blk_dev::RequestKind;

use crate::{conversation, device::Device, session::Session};

/// How long a frontend waits to be tried again that this host has nothing left for.
const RETRY: Duration = Duration::from_secs(1);

/// The orders to stop: the first lets a frontend that is connected finish, the second doesn't.
pub struct Stop {
    signals: Signals,
    /// How long the first does; for ever if there is none.
    timeout: Option<Duration>,
    /// Whoever has started the program.
    manager: Notify,
}

impl Stop {
    /// To stop by `signals`, and after the first of them under a frontend that stays for longer
    /// than `timeout`.
    pub fn new(signals: Signals, timeout: Option<Duration>) -> Self {
        Self { signals, timeout, manager: Notify::from_env() }
    }
}

/// A socket that is listened at, and removed at the end.
pub struct Server {
    listener: Socket,
    device: Arc<Device>,
}

struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// What came first.
enum Woken {
    Ready,
    Signalled(usize),
    TimedOut,
}

impl Server {
    /// Listens at `path`. A socket that nobody listens at any more is replaced.
    pub fn bind(path: &Path, device: Device) -> anyhow::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                bail!(
                    "the socket {} is in use, as another process listens at it: end that one, or name another --socket",
                    path.display()
                );
            }
            fs::remove_file(path)
                .with_context(|| format!("can't replace the socket {}", path.display()))?;
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("can't listen at the socket {}", path.display()))?;
        // A frontend that was there and is gone again must not be waited for.
        listener.set_nonblocking(true).context("can't make the socket non-blocking")?;
        let listener = Socket { listener, path: path.to_owned() };
        Ok(Self { listener, device: Arc::new(device) })
    }

    /// Serves until it is told to stop, and then until the frontend that is connected goes, it is
    /// told again, or the time for that is over.
    pub fn run(self, stop: &Stop) -> anyhow::Result<()> {
        let Self { listener, device } = self;
        info!(socket = %listener.path.display(), "waiting for a frontend");
        stop.manager.ready();
        // Whether it has been told that frontends wait.
        let mut told = false;
        loop {
            match wait(&stop.signals, Some(listener.listener.as_fd()), None)? {
                Woken::Signalled(_) => return Ok(()),
                Woken::Ready | Woken::TimedOut => {}
            }
            let connected = listener.listener.accept().and_then(|(connection, _)| {
                connection.set_nonblocking(false)?;
                Frontend::start(connection, Arc::clone(&device))
            });
            let frontend = match connected {
                Ok(frontend) => frontend,
                Err(error) if is_gone(&error) => continue,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        let error = limits::explain(error);
                        warn!(error = %chain(&error), "a frontend waits and can't be served; this is tried again every second");
                    }
                    match wait(&stop.signals, None, Some(RETRY))? {
                        Woken::Signalled(_) => return Ok(()),
                        Woken::Ready | Woken::TimedOut => continue,
                    }
                }
            };
            told = false;
            match wait(&stop.signals, Some(frontend.over.as_fd()), None)? {
                Woken::Ready | Woken::TimedOut => frontend.end(),
                Woken::Signalled(count) => {
                    // Another program may listen there from now on.
                    drop(listener);
                    return last(frontend, stop, count);
                }
            }
            info!("waiting for the next frontend");
        }
    }
}

/// Serves the frontend that was connected when the order to stop came.
fn last(frontend: Frontend, stop: &Stop, signals: usize) -> anyhow::Result<()> {
    let deadline = stop.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    stop.manager.stopping("waiting for the frontend to disconnect");
    if signals == 1 {
        info!(
            timeout = stop.timeout.map(tracing::field::debug),
            "told to stop: this program ends when the frontend that is connected disconnects; a second signal ends it at once"
        );
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Woken::Ready = wait(&stop.signals, Some(frontend.over.as_fd()), left)? {
            frontend.end();
            return Ok(());
        }
    }
    warn!(
        signals,
        "ending while a frontend is connected: its guest has no disk until a backend listens at the socket again and the frontend reconnects (reconnect= of QEMU's chardev)"
    );
    frontend.end();
    Ok(())
}

/// Whether a connection ended before it was taken.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for a signal, for `other`, if there is one, or for `timeout`.
fn wait(
    signals: &Signals,
    other: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> anyhow::Result<Woken> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    fds.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Woken::TimedOut),
            Ok(_) if fds[0].revents().is_empty() => return Ok(Woken::Ready),
            Ok(_) => match signals.take() {
                0 => {}
                count => return Ok(Woken::Signalled(count)),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("can't wait for a frontend or a signal"),
        }
    }
}

/// A frontend that is connected, and the thread that listens to it: it may stop in the middle of
/// a message.
struct Frontend {
    connection: Arc<UnixStream>,
    /// Readable when the thread has ended.
    over: UnixStream,
    thread: thread::JoinHandle<()>,
}

impl Frontend {
    fn start(connection: UnixStream, device: Arc<Device>) -> io::Result<Self> {
        let own = Arc::new(connection.try_clone()?);
        let (over, end) = UnixStream::pair()?;
        let its = Arc::clone(&own);
        let thread = thread::Builder::new().name("frontend".to_owned()).spawn(move || {
            let _end = end;
            converse(connection, &its, device);
        })?;
        Ok(Self { connection: own, over, thread })
    }

    /// Hangs up, if the frontend hasn't, and has its rings stopped.
    fn end(self) {
        // What can't be shut down has ended by itself.
        let _ = self.connection.shutdown(Shutdown::Both);
        if self.thread.join().is_err() {
            error!(
                thread = "frontend",
                "the thread that served the frontend panicked, and its queues are stopped: have the frontend reconnect, and report this as a bug"
            );
        }
    }
}

/// Serves one frontend, from its connection to its end; whether it left between two messages. `own`
/// is the same connection.
pub fn converse(connection: UnixStream, own: &UnixStream, device: Arc<Device>) -> bool {
    info!("a frontend is connected");
    let session = Arc::new(Mutex::new(Session::new(device)));
    let followed = conversation::follow(connection, own, &session);
    if let Err(error) = &followed {
        warn!(error = %chain(error), "the connection to the frontend is closed: see the frontend's log, and have it connect again");
    }
    let stats = session.lock().unwrap_or_else(PoisonError::into_inner).finish();
    info!(
        requests = stats.requests(),
        bytes_read = stats[RequestKind::Read].bytes,
        bytes_written = stats[RequestKind::Write].bytes,
        flushes = stats[RequestKind::Flush].requests,
        errors = stats.errors(),
        host_errors = stats.host_errors,
        "the frontend has disconnected"
    );
    followed.is_ok()
}
