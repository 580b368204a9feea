//! A client of xenstored.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::connection::{Connection, Failure};
use crate::event::{EventQueue, TooMany};
use crate::poller::Poller;
use crate::wire::{self, Message};
use crate::{DomId, Error, Op, Perm, Store, TxId, WatchEvent, sys};

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// How long a reply may take. The daemon serves all domains in turn and never takes long.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const REPLY_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A directory that changes whenever the next part of it is fetched is given up after this many tries.
const DIRECTORY_ATTEMPTS: u32 = 32;
/// No directory is larger than this, in bytes of names.
const DIRECTORY_MAX: usize = 4 << 20;

/// A connection to xenstored. Dropping it removes its watches and aborts its transactions.
///
/// One request is on the wire at a time; threads that share a client take turns.
#[derive(Debug)]
pub struct XenStore {
    state: Mutex<State>,
    poller: Poller,
    reply_timeout: Duration,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    events: EventQueue,
    last_id: u32,
    /// Why the connection can't be used any more.
    lost: Option<String>,
}

impl XenStore {
    /// Connects to the xenstore of this machine: the daemon's socket in `/run` or `/var/run`, else the kernel's
    /// connection through `/dev/xen/xenbus` or `/proc/xen/xenbus`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with each way that was tried.
    pub fn open() -> Result<Self, Error> {
        let mut tried = Vec::new();
        let sockets = SOCKETS.iter().map(|path| (path, Self::connect_socket(Path::new(path))));
        let devices = DEVICES.iter().map(|path| (path, Self::open_device(Path::new(path))));
        // The chain is lazy: nothing after the first success is touched.
        for (path, result) in sockets.chain(devices) {
            match result {
                Ok(store) => return Ok(store),
                Err(error) => tried.push((PathBuf::from(path), error)),
            }
        }
        Err(Error::Unavailable { tried })
    }

    /// Connects to a daemon's socket.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn connect_socket(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Self::new(stream.into())
    }

    /// Opens the kernel's connection to the daemon, at `path`.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`.
    pub fn open_device(path: &Path) -> io::Result<Self> {
        let flags = libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Self::new(file.into())
    }

    /// Uses a descriptor that is connected already, for instance one passed by a privileged
    /// parent.
    ///
    /// # Errors
    ///
    /// Those of `epoll_create1(2)`, `epoll_ctl(2)` and `eventfd(2)`.
    pub fn new(connection: OwnedFd) -> io::Result<Self> {
        let connection = Connection::new(connection);
        let events = EventQueue::new()?;
        let poller = Poller::new([connection.as_fd(), events.as_fd()])?;
        let state = State { connection, events, last_id: 0, lost: None };
        Ok(Self { state: Mutex::new(state), poller, reply_timeout: REPLY_TIMEOUT })
    }

    /// Sets how long a reply may take before the connection counts as lost; 60 seconds at first, a day at
    /// most.
    pub fn set_reply_timeout(&mut self, timeout: Duration) {
        self.reply_timeout = timeout.min(REPLY_TIMEOUT_MAX);
    }

    /// Sends a request and waits for its reply.
    fn request(
        &self,
        op: Op,
        tx: Option<TxId>,
        path: &str,
        payload: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let mut state = self.lock();
        let state = &mut *state;
        state.check(op, path)?;
        // The kernel answers watches itself, with 0 for an id (Linux `xenbus_dev_frontend.c`).
        let req_id = if matches!(op, Op::Watch | Op::Unwatch) { 0 } else { state.next_id() };
        let tx_id = tx.map_or(0, TxId::get);
        let Some(message) = wire::encode(op, req_id, tx_id, payload) else {
            return Err(Error::refused(op, path, "E2BIG"));
        };
        let deadline = Instant::now() + self.reply_timeout;
        let result = state.exchange(op, req_id, &message, deadline);
        let reply = result.map_err(|failure| state.fail(op, path, failure))?;
        if reply.header.msg_type.get() == op as u32 {
            return Ok(reply.payload);
        }
        match wire::errno(&reply.payload) {
            Ok(errno) => Err(Error::refused(op, path, errno)),
            Err(what) => Err(state.fail(op, path, Failure::Protocol(what))),
        }
    }

    /// A request on one path whose reply is to be understood by `decode`.
    fn ask<T>(
        &self,
        op: Op,
        tx: Option<TxId>,
        path: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, Error> {
        let reply = self.request(op, tx, path, &[&terminated(op, path)?])?;
        self.understand(op, path, decode(&reply))
    }

    fn understand<T>(&self, op: Op, path: &str, decoded: Result<T, String>) -> Result<T, Error> {
        decoded.map_err(|what| self.lock().fail(op, path, Failure::Protocol(what)))
    }

    fn watch_request(&self, op: Op, path: &str, token: &str) -> Result<(), Error> {
        if token.contains('\0') {
            return Err(Error::refused(op, path, "EINVAL"));
        }
        let node = terminated(op, path)?;
        self.request(op, None, path, &[&node, token.as_bytes(), b"\0"]).map(drop)
    }

    /// Fetches the children of a node that has more than fit in a reply.
    fn directory_parts(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        let op = Op::DirectoryPart;
        for _ in 0..DIRECTORY_ATTEMPTS {
            if let Some(names) = self.directory_attempt(tx, path)? {
                return Ok(names);
            }
        }
        Err(Error::refused(op, path, "EAGAIN"))
    }

    /// One run through the parts; `None` if the directory changed on the way.
    fn directory_attempt(
        &self,
        tx: Option<TxId>,
        path: &str,
    ) -> Result<Option<Vec<String>>, Error> {
        let op = Op::DirectoryPart;
        let node = terminated(op, path)?;
        let mut names = Vec::new();
        let mut offset = 0;
        let mut first_generation = None;
        loop {
            let at = format!("{offset}\0");
            let reply = self.request(op, tx, path, &[&node, at.as_bytes()])?;
            let part = self.understand(op, path, wire::directory_part(&reply))?;
            let generation = first_generation.get_or_insert_with(|| part.generation.to_owned());
            if generation != part.generation {
                return Ok(None);
            }
            offset += part.bytes;
            names.extend(part.names);
            if part.last {
                return Ok(Some(names));
            }
            if offset > DIRECTORY_MAX {
                return self.understand(op, path, Err("a directory without an end".into()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_id(&mut self) -> u32 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    fn check(&self, op: Op, path: &str) -> Result<(), Error> {
        if let Some(cause) = &self.lost {
            let what = format!("the connection was lost: {cause}");
            return Err(Error::io(op, path, io::Error::new(io::ErrorKind::NotConnected, what)));
        }
        Ok(())
    }

    /// Marks the connection as lost, as the position in its stream is not known. Its descriptor stays readable.
    fn fail(&mut self, op: Op, path: &str, failure: Failure) -> Error {
        let (cause, error) = match failure {
            Failure::Io(source) => (source.to_string(), Error::io(op, path, source)),
            Failure::Protocol(what) => (what.clone(), Error::protocol(op, path, what)),
        };
        self.lost = Some(cause);
        self.events.hold_readable();
        error
    }

    /// The reply to `message`: of type `op`, or an error. Events that come before it are queued.
    fn exchange(
        &mut self,
        op: Op,
        req_id: u32,
        message: &[u8],
        deadline: Instant,
    ) -> Result<Message, Failure> {
        self.connection.send(message, deadline)?;
        loop {
            let reply = self.connection.receive(deadline)?;
            let (kind, id) = (reply.header.msg_type.get(), reply.header.req_id.get());
            if kind == Op::WatchEvent as u32 {
                self.queue(&reply)?;
            } else if id != req_id {
                return Err(Failure::Protocol(format!("a reply to request {id}, not {req_id}")));
            } else if kind != op as u32 && kind != sys::ERROR {
                return Err(Failure::Protocol(format!("a reply of type {kind}")));
            } else {
                // What was read along with the reply would not make the descriptor readable any more.
                while let Some(event) = self.connection.buffered()? {
                    self.queue(&event)?;
                }
                return Ok(reply);
            }
        }
    }

    /// Queues a message that is no reply, so it must be an event.
    fn queue(&mut self, message: &Message) -> Result<(), Failure> {
        let kind = message.header.msg_type.get();
        if kind != Op::WatchEvent as u32 {
            return Err(Failure::Protocol(format!("a message of type {kind} unasked")));
        }
        let event = wire::watch_event(&message.payload).map_err(Failure::Protocol)?;
        self.events
            .push(event)
            .map_err(|TooMany| Failure::Protocol("too many watch events wait".into()))
    }

    /// Queues the events that have arrived.
    fn drain(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.connection.try_receive()? {
            self.queue(&message)?;
        }
        Ok(())
    }
}

impl Store for XenStore {
    fn read(&self, tx: Option<TxId>, path: &str) -> Result<Vec<u8>, Error> {
        self.request(Op::Read, tx, path, &[&terminated(Op::Read, path)?])
    }

    fn write(&self, tx: Option<TxId>, path: &str, value: &[u8]) -> Result<(), Error> {
        self.request(Op::Write, tx, path, &[&terminated(Op::Write, path)?, value]).map(drop)
    }

    fn mkdir(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.request(Op::Mkdir, tx, path, &[&terminated(Op::Mkdir, path)?]).map(drop)
    }

    fn rm(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.request(Op::Rm, tx, path, &[&terminated(Op::Rm, path)?]).map(drop)
    }

    fn directory(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        let whole = self.ask(Op::Directory, tx, path, wire::names);
        if !matches!(&whole, Err(Error::Refused { errno, .. }) if errno == "E2BIG") {
            return whole;
        }
        match self.directory_parts(tx, path) {
            // A daemon older than Xen 4.9 knows no parts.
            Err(Error::Refused { errno, .. }) if errno == "ENOSYS" => whole,
            parts => parts,
        }
    }

    fn get_perms(&self, tx: Option<TxId>, path: &str) -> Result<Vec<Perm>, Error> {
        self.ask(Op::GetPerms, tx, path, wire::perms)
    }

    fn set_perms(&self, tx: Option<TxId>, path: &str, perms: &[Perm]) -> Result<(), Error> {
        let list: String = perms.iter().map(|perm| format!("{perm}\0")).collect();
        let path_and_nul = terminated(Op::SetPerms, path)?;
        self.request(Op::SetPerms, tx, path, &[&path_and_nul, list.as_bytes()]).map(drop)
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.watch_request(Op::Watch, path, token)
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.watch_request(Op::Unwatch, path, token)
    }

    fn transaction_start(&self) -> Result<TxId, Error> {
        let reply = self.request(Op::TransactionStart, None, "", &[b"\0"])?;
        let id = wire::string(&reply).and_then(|id| {
            let number = id.parse().ok().and_then(TxId::new);
            number.ok_or_else(|| format!("the transaction {id:?}"))
        });
        self.understand(Op::TransactionStart, "", id)
    }

    fn transaction_end(&self, tx: TxId, commit: bool) -> Result<(), Error> {
        let verdict: &[u8] = if commit { b"T\0" } else { b"F\0" };
        self.request(Op::TransactionEnd, Some(tx), &tx.get().to_string(), &[verdict]).map(drop)
    }

    fn domain_path(&self, domid: DomId) -> Result<String, Error> {
        self.ask(Op::GetDomainPath, None, &domid.to_string(), |reply| {
            wire::string(reply).map(str::to_owned)
        })
    }

    fn next_event(&self) -> Result<Option<WatchEvent>, Error> {
        let mut state = self.lock();
        if let Some(event) = state.events.pop() {
            return Ok(Some(event));
        }
        state.check(Op::WatchEvent, "")?;
        let drained = state.drain();
        // What arrived before the connection was lost is still good.
        let event = state.events.pop();
        match drained {
            Ok(()) => Ok(event),
            Err(failure) => {
                let error = state.fail(Op::WatchEvent, "", failure);
                event.map(Some).ok_or(error)
            }
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

/// A path as the wire has it. One with a NUL inside would be taken for two; the daemon would refuse any path with
/// a character like that.
fn terminated(op: Op, path: &str) -> Result<Vec<u8>, Error> {
    if path.contains('\0') {
        return Err(Error::refused(op, path, "EINVAL"));
    }
    Ok([path.as_bytes(), b"\0"].concat())
}
