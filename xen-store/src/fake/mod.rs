//! A xenstore in memory, for tests of code that uses this crate.
//!
//! [`FakeStore`] is a client of a tree that it shares with the clients connected to it. It refuses what the C
//! xenstored refuses, with the same errors, and fires watches, runs transactions and checks permissions as
//! that does (`docs/misc/xenstore.txt`, `tools/xenstored`).

mod node;
mod path;
mod server;
mod store;
mod transaction;

pub use store::FakeStore;
