//! The end of a connection.

use xen_store::Error;

use crate::{World, readable};

pub(crate) fn closing(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.watch("/x", "t").unwrap();
    drop(store);
    other.write(None, "/x", b"").unwrap();
}

pub(crate) fn a_dead_daemon(world: &World) {
    let store = world.client(0);
    world.hub.disconnect();
    assert!(readable(&*store, 10_000));
    assert!(matches!(store.read(None, "/"), Err(Error::Io { path, .. }) if path == "/"));
    assert!(matches!(store.next_event(), Err(Error::Io { .. })));
    assert!(matches!(store.transaction_start(), Err(Error::Io { .. })));
    assert!(readable(&*store, 0));
}
