//! The client.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::node::{Change, Errno, Tree};
use super::path::home;
use super::server::{Client, Server};
use crate::event::EventQueue;
use crate::{DomId, Error, Op, PAYLOAD_MAX, Perm, Store, TxId, WatchEvent};

/// A client of a xenstore in memory. Dropping it removes its watches and aborts its transactions.
pub struct FakeStore {
    server: Arc<Mutex<Server>>,
    id: u64,
    domid: DomId,
    readable: OwnedFd,
}

impl Default for FakeStore {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeStore {
    /// A client of domain 0, the privileged one, of a new xenstore that knows no other domain.
    pub fn new() -> Self {
        let mut server = Server::new();
        server.introduce(0);
        Self::attach(Arc::new(Mutex::new(server)), 0)
    }

    /// Another client of the same xenstore, acting as `domid`. 0 may do everything.
    pub fn connect(&self, domid: DomId) -> Self {
        Self::attach(Arc::clone(&self.server), domid)
    }

    fn attach(server: Arc<Mutex<Server>>, domid: DomId) -> Self {
        let events = EventQueue::new().expect("an eventfd");
        let readable = events.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut state = server.lock().unwrap_or_else(PoisonError::into_inner);
        let id = state.next_client;
        state.next_client += 1;
        state.clients.insert(id, Client::new(domid, events));
        drop(state);
        Self { server, id, domid, readable }
    }

    /// What the toolstack and Xen do for a new domain: `/local/domain/<domid>`, owned by domain 0 and
    /// readable by the guest, with its number in `domid`; then `@introduceDomain` fires.
    pub fn introduce_domain(&self, domid: DomId) {
        let mut server = self.lock();
        server.introduce(domid);
        server.fire_special("@introduceDomain");
    }

    /// A domain dies: `@releaseDomain` fires. Its nodes stay, for the toolstack to remove.
    pub fn release_domain(&self, _domid: DomId) {
        self.lock().fire_special("@releaseDomain");
    }

    /// The next `times` operations of kind `op`, of any client, are refused with this error and do nothing.
    /// [`Op::WatchEvent`] is [`next_event`](Store::next_event).
    pub fn fail_next(&self, op: Op, times: u32, errno: &str) {
        if times > 0 {
            self.lock().faults.push((op, times, errno.to_owned()));
        }
    }

    /// The daemon dies, and comes back as it was: every later operation of every client that there is fails with
    /// [`Error::Io`]; those that [connect](Self::connect) later are served.
    pub fn disconnect(&self) {
        self.lock().hang_up();
    }

    /// The daemon dies, and comes back empty: as [`disconnect`](Self::disconnect), and all nodes but those of domain 0
    /// are lost.
    pub fn restart_empty(&self) {
        // In one step: a client that connects anew never sees what was lost.
        let mut server = self.lock();
        server.hang_up();
        server.tree = Tree::new();
        server.introduce(0);
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation, after the faults that come before it.
    fn run<T>(
        &self,
        op: Op,
        path: &str,
        operation: impl FnOnce(&mut Server, u64) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let mut server = self.lock();
        if server.client(self.id).is_lost() {
            let source = io::Error::new(io::ErrorKind::NotConnected, "the connection was lost");
            return Err(Error::io(op, path, source));
        }
        if let Some(errno) = server.fault(op) {
            return Err(Error::refused(op, path, &errno));
        }
        operation(&mut server, self.id).map_err(|errno| Error::refused(op, path, errno))
    }

    fn change(&self, op: Op, tx: Option<TxId>, path: &str, change: Change) -> Result<(), Error> {
        self.run(op, path, |server, id| server.change(id, tx, path, change))
    }
}

impl Store for FakeStore {
    fn read(&self, tx: Option<TxId>, path: &str) -> Result<Vec<u8>, Error> {
        self.run(Op::Read, path, |server, id| {
            server.look(id, tx, path, |_, _, node| node.value.clone())
        })
    }

    fn write(&self, tx: Option<TxId>, path: &str, value: &[u8]) -> Result<(), Error> {
        if path.len() + 1 + value.len() > PAYLOAD_MAX {
            return Err(Error::refused(Op::Write, path, "E2BIG"));
        }
        self.change(Op::Write, tx, path, Change::Write(value.to_vec()))
    }

    fn mkdir(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.change(Op::Mkdir, tx, path, Change::Mkdir)
    }

    fn rm(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.change(Op::Rm, tx, path, Change::Rm)
    }

    fn directory(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        self.run(Op::Directory, path, |server, id| {
            server.look(id, tx, path, |tree, path, _| tree.children(path))
        })
    }

    fn get_perms(&self, tx: Option<TxId>, path: &str) -> Result<Vec<Perm>, Error> {
        self.run(Op::GetPerms, path, |server, id| {
            server.look(id, tx, path, |_, _, node| node.perms.clone())
        })
    }

    fn set_perms(&self, tx: Option<TxId>, path: &str, perms: &[Perm]) -> Result<(), Error> {
        self.change(Op::SetPerms, tx, path, Change::SetPerms(perms.to_vec()))
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.run(Op::Watch, path, |server, id| server.watch(id, path, token))
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.run(Op::Unwatch, path, |server, id| server.unwatch(id, path, token))
    }

    fn transaction_start(&self) -> Result<TxId, Error> {
        self.run(Op::TransactionStart, "", |server, id| Ok(server.start(id)))
    }

    fn transaction_end(&self, tx: TxId, commit: bool) -> Result<(), Error> {
        let number = tx.get().to_string();
        self.run(Op::TransactionEnd, &number, |server, id| server.end(id, tx, commit))
    }

    fn domain_path(&self, domid: DomId) -> Result<String, Error> {
        self.run(Op::GetDomainPath, &domid.to_string(), |_, _| Ok(home(domid)))
    }

    fn next_event(&self) -> Result<Option<WatchEvent>, Error> {
        self.run(Op::WatchEvent, "", |server, id| Ok(server.client(id).events.pop()))
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        self.lock().clients.remove(&self.id);
    }
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeStore").field("domid", &self.domid).finish_non_exhaustive()
    }
}
