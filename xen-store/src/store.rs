//! The operations of a xenstore client.

use std::num::NonZeroU32;
use std::os::fd::BorrowedFd;

use crate::{DomId, Error, Perm, XenbusState};

/// The longest absolute path, in bytes (`XENSTORE_ABS_PATH_MAX`).
pub const ABS_PATH_MAX: usize = 3072;
/// The longest path relative to a domain's own (`XENSTORE_REL_PATH_MAX`).
pub const REL_PATH_MAX: usize = 2048;
/// The most bytes a request or a reply carries beside its header: path and value of a write together
/// (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;

/// An open transaction, in the numbering of the client that started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxId(NonZeroU32);

impl TxId {
    /// The transaction with this number on the wire; `None` for 0, which means "no transaction" there.
    pub fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    /// The number on the wire.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// A watch fired: look at `path` again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchEvent {
    /// The node that changed: the watched one or one below it; relative if the watch was.
    pub path: String,
    /// The token that the watch was registered with.
    pub token: String,
}

/// A xenstore client.
///
/// A path is absolute (`/local/domain/3/name`) or relative to the client's own domain (`name`); it is made of
/// ASCII letters, digits and `-/_@`, has no empty component, and is at most [`ABS_PATH_MAX`] or [`REL_PATH_MAX`]
/// bytes long. `tx` is a transaction of this client to work in, or `None`.
///
/// # Errors
///
/// Every method can fail with [`Error::Refused`], naming the daemon's reason, and with [`Error::Io`] and
/// [`Error::Protocol`] when the connection is lost. Reasons common to all: `EINVAL` for a bad path, `EACCES` for
/// a node this domain may not touch, `ENOENT` for an unknown transaction, `E2BIG` for a request over
/// [`PAYLOAD_MAX`].
pub trait Store: Send + Sync + 'static {
    /// The value of a node; `ENOENT` if there is none.
    fn read(&self, tx: Option<TxId>, path: &str) -> Result<Vec<u8>, Error>;

    /// Sets the value of a node, and creates it and its parents where they are missing. New nodes inherit the
    /// permissions of their parent; their owner is the writer, unless that is the privileged domain.
    fn write(&self, tx: Option<TxId>, path: &str, value: &[u8]) -> Result<(), Error>;

    /// Creates a node with an empty value, and its parents. Nothing happens if it exists.
    fn mkdir(&self, tx: Option<TxId>, path: &str) -> Result<(), Error>;

    /// Removes a node and everything below it. Nothing happens if it is missing and its parent is not;
    /// `ENOENT` if both are.
    fn rm(&self, tx: Option<TxId>, path: &str) -> Result<(), Error>;

    /// The names of a node's children, in no particular order; `ENOENT` if there is no such node. A list longer
    /// than a reply is fetched in parts, `E2BIG` if the daemon is too old for that.
    fn directory(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error>;

    /// Who may do what; the first entry names the owner and, as its access, everyone else's.
    fn get_perms(&self, tx: Option<TxId>, path: &str) -> Result<Vec<Perm>, Error>;

    /// Replaces the permissions of a node of our own (see [`get_perms`](Self::get_perms)). `EINVAL` for an
    /// empty list, `EPERM` for giving a node away.
    fn set_perms(&self, tx: Option<TxId>, path: &str, perms: &[Perm]) -> Result<(), Error>;

    /// Watches a node and everything below it; it need not exist. Fires once at registration, then at
    /// every change. `@introduceDomain` and `@releaseDomain` fire when domains come and die. `EEXIST` if the same
    /// path and token are watched already.
    fn watch(&self, path: &str, token: &str) -> Result<(), Error>;

    /// Removes a watch; `ENOENT` if there is none with this path and token. Events that were on their
    /// way may still come.
    fn unwatch(&self, path: &str, token: &str) -> Result<(), Error>;

    /// Starts a transaction. What is done in it is seen by nobody until it is committed.
    fn transaction_start(&self) -> Result<TxId, Error>;

    /// Ends a transaction. With `commit`, `EAGAIN` ([`Error::is_again`]) says that a node it used was changed by
    /// someone else: nothing was done and all of it should be tried again. Either way it is over.
    fn transaction_end(&self, tx: TxId, commit: bool) -> Result<(), Error>;

    /// Where a domain's nodes are: `/local/domain/<domid>`, whether it exists or not.
    fn domain_path(&self, domid: DomId) -> Result<String, Error>;

    /// The next watch event, without waiting for one: `None` when there is none. An event equal to one that
    /// still waits here is not queued twice. More than 65536 waiting events are a lost connection, as
    /// losing events would go unseen.
    fn next_event(&self) -> Result<Option<WatchEvent>, Error>;

    /// The descriptor to poll (POLLIN): readable while an event may be waiting, and when the connection is
    /// lost. It is only good for polling. Take events until there is none before sleeping on it.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

/// The attempts of [`StoreExt::transaction`].
const TRANSACTION_ATTEMPTS: u32 = 32;

/// What can be done with any [`Store`].
pub trait StoreExt: Store {
    /// The value of a node as text.
    ///
    /// # Errors
    ///
    /// Those of [`Store::read`], and [`Error::NotText`].
    fn read_string(&self, tx: Option<TxId>, path: &str) -> Result<String, Error> {
        String::from_utf8(self.read(tx, path)?)
            .map_err(|e| Error::NotText { path: path.to_owned(), source: e.utf8_error() })
    }

    /// Whether a node exists.
    ///
    /// # Errors
    ///
    /// Those of [`Store::read`], except `ENOENT`.
    fn exists(&self, tx: Option<TxId>, path: &str) -> Result<bool, Error> {
        match self.read(tx, path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The value of a node as text; `None` if there is no such node.
    ///
    /// # Errors
    ///
    /// Those of [`read_string`](Self::read_string), except `ENOENT`.
    fn lookup(&self, tx: Option<TxId>, path: &str) -> Result<Option<String>, Error> {
        match self.read_string(tx, path) {
            Err(error) if error.is_not_found() => Ok(None),
            value => value.map(Some),
        }
    }

    /// The value of a node as a number: decimal, or hexadecimal after `0x`, as the toolstack writes the one for some
    /// devices and the other for others.
    ///
    /// # Errors
    ///
    /// Those of [`read_string`](Self::read_string), and [`Error::NotNumber`].
    fn read_number(&self, tx: Option<TxId>, path: &str) -> Result<u64, Error> {
        let text = self.read_string(tx, path)?;
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.map_err(|source| Error::NotNumber { path: path.to_owned(), source })
    }

    /// The names of a node's children; none if there is no such node.
    ///
    /// # Errors
    ///
    /// Those of [`Store::directory`], except `ENOENT`.
    fn children(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        match self.directory(tx, path) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            names => names,
        }
    }

    /// How far the end of a device whose directory is `dir` has come, as its `state` node says; `None` if it has
    /// none. A value that isn't valid is [`XenbusState::Unknown`].
    ///
    /// # Errors
    ///
    /// Those of [`Store::read`], except `ENOENT`.
    fn xenbus_state(&self, tx: Option<TxId>, dir: &str) -> Result<Option<XenbusState>, Error> {
        match self.read(tx, &format!("{dir}/state")) {
            Ok(text) => Ok(Some(XenbusState::parse(&String::from_utf8_lossy(&text)))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves the end of a device whose directory is `dir` from one state to another, unless somebody else has moved
    /// it meanwhile or its `state` node has gone. Gives whether it did.
    ///
    /// # Errors
    ///
    /// Those of [`transaction`](Self::transaction).
    fn change_xenbus_state(
        &self,
        dir: &str,
        from: XenbusState,
        to: XenbusState,
    ) -> Result<bool, Error> {
        self.transaction(|tx| {
            if self.xenbus_state(Some(tx), dir)? != Some(from) {
                return Ok(false);
            }
            self.write(Some(tx), &format!("{dir}/state"), to.as_str().as_bytes())?;
            Ok(true)
        })
    }

    /// Runs `body` in a transaction and commits it; aborts it if `body` fails. Starts over when it lost
    /// against another change, at most 32 times in all.
    ///
    /// # Errors
    ///
    /// Those of `body` and of the commit; the `EAGAIN` of the last attempt if all of them lost.
    fn transaction<T, F>(&self, mut body: F) -> Result<T, Error>
    where
        F: FnMut(TxId) -> Result<T, Error>,
    {
        let mut attempt = 1;
        loop {
            let tx = self.transaction_start()?;
            let result = match body(tx) {
                Ok(value) => self.transaction_end(tx, true).map(|()| value),
                Err(error) => {
                    // What `body` met matters more than how its clean-up went.
                    let _ = self.transaction_end(tx, false);
                    Err(error)
                }
            };
            match result {
                Err(error) if error.is_again() && attempt < TRANSACTION_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}
