//! The connection to xenstored, which may be dead or stuck: whoever opens it must not wait for it.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, TryRecvError},
    },
    thread,
    time::Duration,
};

use backend_process::limits;
use virtio_worker::Wake;
use xen_store::{Store, XenStore};

/// How long the first answer of a new connection may take. Through /dev/xen/xenbus, a request to an xenstored that is
/// not there waits for one that comes.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How long any other may take, before the connection counts as lost and is made anew.
const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// Nothing to connect to.
    #[error(
        "xenstored can't be reached: start it (`systemctl status xenstored` says more); in a driver domain, load the \
         module xenfs"
    )]
    Unreachable(#[source] xen_store::Error),
    /// There is a way to it, but nobody answers.
    #[error(
        "xenstored does not answer within {} s: it is dead or stuck, see `systemctl status xenstored` and its log",
        FIRST_ANSWER.as_secs()
    )]
    Silent(#[source] xen_store::Error),
    /// No thread or descriptor to connect with.
    #[error("can't connect to xenstored{}", Advice(.0))]
    System(#[from] io::Error),
}

/// What to do about an error that comes of a limit, after a colon; nothing for any other.
struct Advice<'a>(&'a io::Error);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        limits::advice(self.0).map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

/// Connects to this machine's xenstored and asks it a first question.
///
/// # Errors
/// It can't be reached, or doesn't answer within 3 s.
pub fn open() -> Result<XenStore, ContactError> {
    greet(XenStore::open().map_err(unreachable)?)
}

/// Why there is nothing to connect to. xenstored may well be there if it is this process that may open no more files.
fn unreachable(error: xen_store::Error) -> ContactError {
    match error {
        xen_store::Error::Unavailable { mut tried } => {
            match tried.iter().position(|(_, error)| limits::is_out_of_files(error)) {
                Some(index) => ContactError::System(tried.swap_remove(index).1),
                None => ContactError::Unreachable(xen_store::Error::Unavailable { tried }),
            }
        }
        other => ContactError::Unreachable(other),
    }
}

/// Asks a first question.
fn greet(mut store: XenStore) -> Result<XenStore, ContactError> {
    store.set_reply_timeout(FIRST_ANSWER);
    store.domain_path(0).map_err(ContactError::Silent)?;
    store.set_reply_timeout(ANSWER);
    Ok(store)
}

/// How to connect.
pub type Connect<S> = Arc<dyn Fn() -> Result<S, ContactError> + Send + Sync>;

/// An attempt to connect, on a thread of its own.
pub struct Contact<S> {
    result: Receiver<Result<S, ContactError>>,
    done: Wake,
}

impl<S: Send + 'static> Contact<S> {
    /// Begins one.
    ///
    /// # Errors
    /// There is no thread or descriptor for it.
    pub fn begin(connect: &Connect<S>) -> Result<Self, ContactError> {
        let (sender, result) = mpsc::channel();
        let done = Wake::new()?;
        let (connect, waker) = (Arc::clone(connect), done.waker());
        thread::Builder::new().name("xenstore".into()).spawn(move || {
            // Whoever waited may have given up.
            let _ = sender.send(connect());
            waker.wake();
        })?;
        Ok(Self { result, done })
    }

    /// What has come of it; `None` while it isn't over.
    pub fn take(&self) -> Option<Result<S, ContactError>> {
        match self.result.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the thread that connects panicked").into()))
            }
        }
    }
}

/// Readable when it is over.
impl<S> AsFd for Contact<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::{error::Error, os::unix::net::UnixListener, path::PathBuf, time::Instant};

    #[test]
    fn a_process_without_descriptors_is_not_sent_to_look_at_xenstored() {
        let tried = |errnos: &[Errno]| {
            let error = |errno: &Errno| (PathBuf::from("/run/xenstored/socket"), (*errno).into());
            unreachable(xen_store::Error::Unavailable { tried: errnos.iter().map(error).collect() })
        };
        for errnos in [[Errno::MFILE, Errno::MFILE], [Errno::NOENT, Errno::NFILE]] {
            let error = tried(&errnos);
            let text = error.to_string();
            assert!(text.contains("open") && text.contains("files"), "{text}");
            assert!(!text.contains("start it (") && !text.contains("xenfs"), "{text}");
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert!(limits::is_out_of_files(source.unwrap()), "{error:?}");
        }
        let absent = tried(&[Errno::NOENT, Errno::CONNREFUSED]);
        assert!(matches!(absent, ContactError::Unreachable(_)), "{absent}");
    }

    #[test]
    fn an_xenstored_that_does_not_answer_is_named_within_3_seconds_and_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        // Connections are taken by the kernel; nobody reads them.
        let _silent = UnixListener::bind(&socket).unwrap();
        let connect: Connect<XenStore> =
            Arc::new(move || greet(XenStore::connect_socket(&socket)?));
        let begin = Instant::now();
        let mut contact = Contact::begin(&connect).unwrap();
        assert!(contact.take().is_none() && begin.elapsed() < Duration::from_secs(2));
        let error = loop {
            contact.done.wait(None, Some(Duration::from_secs(60))).unwrap();
            if let Some(result) = contact.take() {
                break result.expect_err("nobody answers");
            }
        };
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        assert!(matches!(error, ContactError::Silent(_)), "{error}");
        assert!(error.to_string().starts_with("xenstored does not answer within 3 s"), "{error}");
    }
}
