//! The daemon's side: the tree, its clients, and what they are told.

use std::collections::BTreeMap;

use super::node::{Change, Errno, Fired, Need, Node, Tree};
use super::path::{absolute, home, is_within};
use super::transaction::Transaction;
use crate::event::EventQueue;
use crate::{Access, DomId, Op, PAYLOAD_MAX, Perm, REL_PATH_MAX, TxId, WatchEvent};

struct Watch {
    /// Absolute, or the name of a special event.
    path: String,
    token: String,
    /// Events name nodes relative to the domain's own.
    relative: bool,
}

pub(super) struct Client {
    pub(super) domid: DomId,
    pub(super) events: EventQueue,
    watches: Vec<Watch>,
    transactions: BTreeMap<TxId, Transaction>,
    lost: bool,
}

impl Client {
    pub(super) fn new(domid: DomId, events: EventQueue) -> Self {
        Self { domid, events, watches: Vec::new(), transactions: BTreeMap::new(), lost: false }
    }

    /// The connection is lost, and what belongs to it.
    pub(super) fn hang_up(&mut self) {
        self.lost = true;
        self.watches.clear();
        self.transactions.clear();
        self.events.hold_readable();
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }
}

pub(super) struct Server {
    pub(super) tree: Tree,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) faults: Vec<(Op, u32, String)>,
    pub(super) next_client: u64,
    next_tx: u32,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            tree: Tree::new(),
            clients: BTreeMap::new(),
            faults: Vec::new(),
            next_client: 0,
            next_tx: 1,
        }
    }

    /// Ends the connection of every client that there is.
    pub(super) fn hang_up(&mut self) {
        self.clients.values_mut().for_each(Client::hang_up);
    }

    /// The error injected for `op`, if one is due.
    pub(super) fn fault(&mut self, op: Op) -> Option<String> {
        let at = self.faults.iter().position(|(kind, ..)| *kind == op)?;
        let (_, times, errno) = &mut self.faults[at];
        *times -= 1;
        let (done, errno) = (*times == 0, errno.clone());
        if done {
            self.faults.remove(at);
        }
        Some(errno)
    }

    pub(super) fn client(&mut self, id: u64) -> &mut Client {
        self.clients.get_mut(&id).expect("a client lives as long as its FakeStore")
    }

    /// Looks at a node through `look`.
    pub(super) fn look<T>(
        &mut self,
        id: u64,
        tx: Option<TxId>,
        path: &str,
        look: impl FnOnce(&Tree, &str, &Node) -> T,
    ) -> Result<T, Errno> {
        let domid = self.client(id).domid;
        let path = absolute(domid, path)?;
        let tree = match tx {
            None => &self.tree,
            Some(tx) => {
                let client = self.clients.get_mut(&id);
                let transaction =
                    client.and_then(|c| c.transactions.get_mut(&tx)).ok_or("ENOENT")?;
                transaction.note(&path);
                &transaction.tree
            }
        };
        let node = tree.get(domid, &path, Need::Read)?;
        Ok(look(tree, &path, node))
    }

    pub(super) fn change(
        &mut self,
        id: u64,
        tx: Option<TxId>,
        path: &str,
        change: Change,
    ) -> Result<(), Errno> {
        let domid = self.client(id).domid;
        let path = absolute(domid, path)?;
        let Some(tx) = tx else {
            let fired = self.tree.change(domid, &path, change)?;
            self.fire(&fired);
            return Ok(());
        };
        let transaction = self.client(id).transactions.get_mut(&tx).ok_or("ENOENT")?;
        transaction.change(domid, &path, change)
    }

    pub(super) fn watch(&mut self, id: u64, path: &str, token: &str) -> Result<(), Errno> {
        let client = self.client(id);
        let watch = parse_watch(client.domid, path, token)?;
        if client.watches.iter().any(|w| w.path == watch.path && w.token == watch.token) {
            return Err("EEXIST");
        }
        client.watches.push(watch);
        send(client, path.to_owned(), token);
        Ok(())
    }

    pub(super) fn unwatch(&mut self, id: u64, path: &str, token: &str) -> Result<(), Errno> {
        let client = self.client(id);
        let watch = parse_watch(client.domid, path, token)?;
        let mut watches = client.watches.iter();
        let at = watches.position(|w| w.path == watch.path && w.token == watch.token);
        client.watches.remove(at.ok_or("ENOENT")?);
        Ok(())
    }

    pub(super) fn start(&mut self, id: u64) -> TxId {
        let tx = TxId::new(self.next_tx).expect("numbers from 1 on");
        self.next_tx += 1;
        let transaction = Transaction::new(&self.tree);
        self.client(id).transactions.insert(tx, transaction);
        tx
    }

    pub(super) fn end(&mut self, id: u64, tx: TxId, commit: bool) -> Result<(), Errno> {
        let client = self.client(id);
        let domid = client.domid;
        let transaction = client.transactions.remove(&tx).ok_or("ENOENT")?;
        if commit {
            let fired = transaction.commit(domid, &mut self.tree)?;
            self.fire(&fired);
        }
        Ok(())
    }

    /// What the toolstack does for a new domain: a home that the guest can read, and its number in it.
    pub(super) fn introduce(&mut self, domid: DomId) {
        let home = home(domid);
        let number = domid.to_string().into_bytes();
        let perms = vec![Perm::new(0, Access::None), Perm::new(domid, Access::Read)];
        let changes = [
            (home.clone(), Change::Mkdir),
            (home.clone(), Change::SetPerms(perms)),
            (format!("{home}/domid"), Change::Write(number)),
        ];
        for (path, change) in changes {
            let fired = self.tree.change(0, &path, change).expect("the privileged domain may");
            self.fire(&fired);
        }
    }

    /// Tells every watch of a special event.
    pub(super) fn fire_special(&mut self, name: &str) {
        for client in self.clients.values_mut() {
            for at in 0..client.watches.len() {
                if client.watches[at].path == name {
                    let token = client.watches[at].token.clone();
                    send(client, name.to_owned(), &token);
                }
            }
        }
    }

    fn fire(&mut self, fired: &[Fired]) {
        for client in self.clients.values_mut() {
            for change in fired {
                // A domain hears of what it could read.
                if !self.tree.may(client.domid, &change.path, Need::Read) {
                    continue;
                }
                for at in 0..client.watches.len() {
                    let watch = &client.watches[at];
                    let meant = if change.exact {
                        change.path == watch.path
                    } else {
                        is_within(&change.path, &watch.path)
                    };
                    if meant {
                        let path = seen(client.domid, watch, &change.path);
                        let token = watch.token.clone();
                        send(client, path, &token);
                    }
                }
            }
        }
    }
}

fn send(client: &mut Client, path: String, token: &str) {
    let sent = client.events.push(WatchEvent { path, token: token.to_owned() });
    assert!(sent.is_ok(), "a test leaves too many watch events waiting");
}

/// The path as the watch's owner calls it.
fn seen(domid: DomId, watch: &Watch, path: &str) -> String {
    let home = format!("{}/", home(domid));
    let relative = path.strip_prefix(&home).filter(|_| watch.relative);
    relative.unwrap_or(path).to_owned()
}

fn parse_watch(domid: DomId, path: &str, token: &str) -> Result<Watch, Errno> {
    if token.contains('\0') {
        return Err("EINVAL");
    }
    if path.len() + token.len() + 2 > PAYLOAD_MAX {
        return Err("E2BIG");
    }
    let special = path.starts_with('@');
    let full = match special {
        true if path.len() > REL_PATH_MAX || path.contains('\0') => return Err("EINVAL"),
        true => path.to_owned(),
        false => absolute(domid, path)?,
    };
    let relative = !special && !path.starts_with('/');
    Ok(Watch { path: full, token: token.to_owned(), relative })
}
