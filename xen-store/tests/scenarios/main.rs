//! What a client may rely on, asked of the fake and, over the wire, of the real client: both agree.
#![cfg(all(feature = "test-utils", not(miri)))] // Miri does not know poll(2)

mod connection;
mod nodes;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
mod watches;

use std::os::fd::AsRawFd;

use connection::*;
use nodes::*;
use support::real_client;
use transactions::*;
use watches::*;
use xen_store::fake::FakeStore;
use xen_store::{Error, Store, WatchEvent};

/// Makes clients, acting as a domain, of one xenstore.
struct World {
    hub: FakeStore,
    real: bool,
}

impl World {
    fn client(&self, domid: u16) -> Box<dyn Store> {
        let client = self.hub.connect(domid);
        if self.real { Box::new(real_client(client)) } else { Box::new(client) }
    }
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        mod on_the_fake {
            $(#[test]
            fn $name() {
                super::$name(&super::World { hub: super::FakeStore::new(), real: false });
            })*
        }
        mod on_the_wire {
            $(#[test]
            fn $name() {
                super::$name(&super::World { hub: super::FakeStore::new(), real: true });
            })*
        }
    };
}

scenarios!(
    values,
    missing_nodes,
    xenbus_states,
    paths,
    sizes,
    directories,
    large_directories,
    removal,
    permissions,
    inherited_permissions,
    watches,
    special_watches,
    relative_paths,
    watches_of_other_domains,
    equal_events,
    events_between_replies,
    transactions,
    transaction_conflicts,
    transaction_helper,
    closing,
    a_dead_daemon,
);

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result.unwrap_err() {
        Error::Refused { errno, .. } => errno,
        other => panic!("{other}"),
    }
}

/// Waits for a descriptor to be readable.
fn readable(store: &dyn Store, timeout: i32) -> bool {
    let mut poll = libc::pollfd { fd: store.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one pollfd, and outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
    ready == 1
}

fn next(store: &dyn Store) -> (String, String) {
    loop {
        if let Some(WatchEvent { path, token }) = store.next_event().unwrap() {
            return (path, token);
        }
        assert!(readable(store, 10_000), "an event");
    }
}

/// Takes all events that were sent before now: those of a watch of our own come last.
fn events(store: &dyn Store) -> Vec<(String, String)> {
    store.watch("/fence", "fence").unwrap();
    let mut events = Vec::new();
    loop {
        let event = next(store);
        if event.1 == "fence" {
            store.unwatch("/fence", "fence").unwrap();
            return events;
        }
        events.push(event);
    }
}

fn event(path: &str, token: &str) -> (String, String) {
    (path.to_owned(), token.to_owned())
}
