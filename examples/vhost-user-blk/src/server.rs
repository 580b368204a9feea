//! The socket: one frontend after the other, until a signal comes.

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
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{RecvFlags, recv},
};
use tracing::{error, info, warn};
use vhost::vhost_user::{BackendReqHandler, Error};

use virtio_blk_dev::RequestKind;

use crate::{device::Device, session::Session};

/// A socket that is listened at, and removed at the end.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    device: Arc<Device>,
}

impl Server {
    /// Listens at `path`. A socket that nobody listens at any more is replaced.
    pub fn bind(path: &Path, device: Device) -> anyhow::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                bail!("{} is in use: another process listens there", path.display());
            }
            fs::remove_file(path).with_context(|| format!("replacing {}", path.display()))?;
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned(), device: Arc::new(device) })
    }

    /// Serves until `stop` is readable.
    pub fn run(&self, stop: BorrowedFd<'_>) -> anyhow::Result<()> {
        info!(socket = %self.path.display(), "waiting for a frontend");
        while wait(stop, self.listener.as_fd())? {
            let (connection, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("accepting a frontend"),
            };
            self.serve(connection, stop)?;
            info!("waiting for the next frontend");
        }
        Ok(())
    }

    /// A frontend may stop in the middle of a message, so it is another thread that waits for it.
    fn serve(&self, connection: UnixStream, stop: BorrowedFd<'_>) -> anyhow::Result<()> {
        let hang_up = connection.try_clone().context("a connection's second handle")?;
        let (over, ended) = UnixStream::pair().context("a pair of sockets")?;
        let device = Arc::clone(&self.device);
        let thread = thread::Builder::new()
            .name("frontend".to_owned())
            .spawn(move || {
                let _over = over;
                converse(connection, device);
            })
            .context("a thread for the frontend")?;
        let goes_on = wait(stop, ended.as_fd());
        // What can't be shut down has ended by itself.
        let _ = hang_up.shutdown(Shutdown::Both);
        if thread.join().is_err() {
            error!("the thread that served the frontend panicked");
        }
        goes_on.map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits for either; `false` if it is `stop`.
fn wait(stop: BorrowedFd<'_>, other: BorrowedFd<'_>) -> anyhow::Result<bool> {
    let mut fds = [
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
        PollFd::from_borrowed_fd(other, PollFlags::IN),
    ];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for a frontend or a signal"),
        }
    }
}

/// One frontend, from its connection to its end.
fn converse(connection: UnixStream, device: Arc<Device>) {
    info!("a frontend is connected");
    let session = Arc::new(Mutex::new(Session::new(device)));
    let ended = connection.try_clone().map_err(Error::SocketError).and_then(|peek| {
        let mut handler = BackendReqHandler::from_stream(connection, Arc::clone(&session));
        // The end between two messages is no error; in the middle of one it is.
        while recv(&peek, &mut [0; 1], RecvFlags::PEEK).is_ok_and(|(_, len)| len != 0) {
            handler.handle_request()?;
        }
        Ok(())
    });
    if let Err(error) = ended {
        warn!(%error, "the frontend is let go: it should mend this and connect again");
    }
    let stats = session.lock().unwrap_or_else(PoisonError::into_inner).finish();
    info!(
        requests = stats.requests(),
        bytes_read = stats[RequestKind::Read].bytes,
        bytes_written = stats[RequestKind::Write].bytes,
        flushes = stats[RequestKind::Flush].requests,
        errors = stats.errors(),
        host_errors = stats.host_errors,
        "the frontend is gone"
    );
}
