//! A xenstore client, over the daemon's socket or `/dev/xen/xenbus`.
//!
//! Xenstore is the tree of small values through which Xen's domains and toolstack find each other. [`Store`] is
//! what a client of it does; [`XenStore`] is the real one, and `fake::FakeStore` (feature `test-utils`) one in
//! memory, as strict as xenstored. [`StoreExt`] adds what can be built on both, such as a transaction that is tried
//! again when it lost.
//!
//! Watch events come in on a pollable descriptor, and are taken without waiting:
//!
//! ```
//! # #[cfg(feature = "test-utils")]
//! # fn main() -> Result<(), xen_store::Error> {
//! use xen_store::fake::FakeStore;
//! use xen_store::{Store, StoreExt, WatchEvent};
//!
//! let store = FakeStore::new(); // in production: XenStore::open()?
//! store.write(None, "/local/domain/0/backend/state", b"2")?;
//! assert_eq!(store.read_string(None, "/local/domain/0/backend/state")?, "2");
//!
//! store.watch("/local/domain/0/backend", "mine")?;
//! while let Some(WatchEvent { path, token }) = store.next_event()? {
//!     assert_eq!((path.as_str(), token.as_str()), ("/local/domain/0/backend", "mine"));
//! } // now poll store.as_fd()
//!
//! // A change that depends on what is there.
//! store.transaction(|tx| {
//!     let state = store.read(Some(tx), "backend/state")?; // relative to our own domain
//!     if state == b"2" { store.write(Some(tx), "backend/state", b"4") } else { Ok(()) }
//! })?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "test-utils"))]
//! # fn main() {}
//! ```
//!
//! # Threat model
//!
//! | Who | Can | Cannot, and why |
//! |---|---|---|
//! | A guest | write any bytes to its own nodes at any time | break more than the value: it is bytes here, [`StoreExt::read_string`] refuses what is not UTF-8, and the meaning is the caller's to check |
//! | A guest | change watched nodes at any rate | grow memory: equal events wait once, and 65536 waiting events end the connection |
//! | A guest | make a transaction lose again and again | hang the caller: [`StoreExt::transaction`] gives up after 32 attempts |
//! | xenstored | refuse, delay, lie about contents: it is trusted with them | crash or hang the caller: every reply is checked before it is used, and awaited for a bounded time |
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod connection;
mod error;
mod event;
mod op;
mod perm;
mod poller;
mod store;
mod sys;
mod wire;
mod xenbus;

#[cfg(any(test, feature = "test-utils"))]
pub mod fake;

pub use client::XenStore;
pub use error::Error;
pub use op::Op;
pub use perm::{Access, DomId, ParsePermError, Perm};
pub use store::{ABS_PATH_MAX, PAYLOAD_MAX, REL_PATH_MAX, Store, StoreExt, TxId, WatchEvent};
pub use xenbus::XenbusState;
