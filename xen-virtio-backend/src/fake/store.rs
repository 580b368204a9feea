//! The backend's connection to xenstore.

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xen_store::{DomId, Error, Perm, Store, TxId, WatchEvent, fake::FakeStore};

type OnWrite = Box<dyn Fn(&str, &[u8]) + Send + Sync>;
type OnTransaction = Box<dyn FnOnce() + Send>;

/// What a test does when the backend writes.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    on_write: Arc<Mutex<Option<OnWrite>>>,
    on_transaction: Arc<Mutex<Option<OnTransaction>>>,
}

impl Hooks {
    pub(super) fn on_write(&self, look: OnWrite) {
        *lock(&self.on_write) = Some(look);
    }

    pub(super) fn on_transaction(&self, meanwhile: OnTransaction) {
        *lock(&self.on_transaction) = Some(meanwhile);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that calls [`Hooks`].
pub(super) struct HookedStore {
    pub(super) inner: FakeStore,
    pub(super) hooks: Hooks,
}

impl Store for HookedStore {
    fn read(&self, tx: Option<TxId>, path: &str) -> Result<Vec<u8>, Error> {
        self.inner.read(tx, path)
    }
    fn write(&self, tx: Option<TxId>, path: &str, value: &[u8]) -> Result<(), Error> {
        if let Some(look) = &*lock(&self.hooks.on_write) {
            look(path, value);
        }
        self.inner.write(tx, path, value)
    }
    fn mkdir(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.inner.mkdir(tx, path)
    }
    fn rm(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.inner.rm(tx, path)
    }
    fn directory(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        self.inner.directory(tx, path)
    }
    fn get_perms(&self, tx: Option<TxId>, path: &str) -> Result<Vec<Perm>, Error> {
        self.inner.get_perms(tx, path)
    }
    fn set_perms(&self, tx: Option<TxId>, path: &str, perms: &[Perm]) -> Result<(), Error> {
        self.inner.set_perms(tx, path, perms)
    }
    fn watch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.inner.watch(path, token)
    }
    fn unwatch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.inner.unwatch(path, token)
    }
    fn transaction_start(&self) -> Result<TxId, Error> {
        let meanwhile = lock(&self.hooks.on_transaction).take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        self.inner.transaction_start()
    }
    fn transaction_end(&self, tx: TxId, commit: bool) -> Result<(), Error> {
        self.inner.transaction_end(tx, commit)
    }
    fn domain_path(&self, domid: DomId) -> Result<String, Error> {
        self.inner.domain_path(domid)
    }
    fn next_event(&self) -> Result<Option<WatchEvent>, Error> {
        self.inner.next_event()
    }
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}
