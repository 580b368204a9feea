//! Watches, and the events that they send.

use xen_store::{Access, Perm, StoreExt};

use crate::{World, errno, event, events, next, readable};

pub(crate) fn watches(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    assert_eq!(store.next_event().unwrap(), None);
    store.watch("/w/a", "one").unwrap();
    assert_eq!(next(&*store), event("/w/a", "one"));
    assert_eq!(store.next_event().unwrap(), None);
    assert!(!readable(&*store, 0));
    assert_eq!(errno(store.watch("/w/a", "one")), "EEXIST");
    store.watch("/w", "two").unwrap();
    assert_eq!(next(&*store), event("/w", "two"));
    other.write(None, "/w/a/x/y", b"").unwrap();
    assert!(readable(&*store, 10_000));
    assert_eq!(next(&*store), event("/w/a/x/y", "one"));
    assert_eq!(next(&*store), event("/w/a/x/y", "two"));
    other.write(None, "/w/ab", b"").unwrap();
    assert_eq!(events(&*store), [event("/w/ab", "two")]);
    other.read(None, "/w/ab").unwrap();
    other.mkdir(None, "/w/ab").unwrap();
    assert_eq!(events(&*store), []);
    other.set_perms(None, "/w/ab", &[Perm::new(0, Access::None)]).unwrap();
    assert_eq!(events(&*store), [event("/w/ab", "two")]);
    store.watch("/w/a/x/y", "three").unwrap();
    store.unwatch("/w/a", "one").unwrap();
    assert_eq!(errno(store.unwatch("/w/a", "one")), "ENOENT");
    assert_eq!(next(&*store), event("/w/a/x/y", "three"));
    // Below the removed node only the watches of what went with it hear, each of its own.
    store.rm(None, "/w/a").unwrap();
    let mut heard = events(&*store);
    heard.sort();
    assert_eq!(heard, [event("/w/a", "two"), event("/w/a/x/y", "three")]);
    other.rm(None, "/w/a").unwrap();
    assert_eq!(events(&*store), []);
}

pub(crate) fn special_watches(world: &World) {
    let store = world.client(0);
    store.watch("@introduceDomain", "i").unwrap();
    store.watch("@releaseDomain", "r").unwrap();
    assert_eq!(next(&*store), event("@introduceDomain", "i"));
    assert_eq!(next(&*store), event("@releaseDomain", "r"));
    world.hub.introduce_domain(9);
    assert_eq!(next(&*store), event("@introduceDomain", "i"));
    world.hub.release_domain(9);
    assert_eq!(next(&*store), event("@releaseDomain", "r"));
    assert_eq!(events(&*store), []);
}

pub(crate) fn relative_paths(world: &World) {
    world.hub.introduce_domain(6);
    let (dom0, guest) = (world.client(0), world.client(6));
    guest.watch("device", "t").unwrap();
    assert_eq!(next(&*guest), event("device", "t"));
    dom0.write(None, "/local/domain/6/device/x", b"1").unwrap();
    assert_eq!(next(&*guest), event("device/x", "t"));
    assert_eq!(guest.read(None, "device/x").unwrap(), b"1");
    assert_eq!(dom0.read_string(None, "domid").unwrap(), "0");
}

pub(crate) fn watches_of_other_domains(world: &World) {
    world.hub.introduce_domain(1);
    world.hub.introduce_domain(2);
    let (dom0, guest) = (world.client(0), world.client(2));
    guest.watch("/local/domain", "t").unwrap();
    assert_eq!(next(&*guest), event("/local/domain", "t"));
    dom0.write(None, "/local/domain/1/secret", b"").unwrap();
    dom0.write(None, "/local/domain/2/open", b"").unwrap();
    assert_eq!(next(&*guest), event("/local/domain/2/open", "t"));
}

pub(crate) fn equal_events(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.watch("/e", "t").unwrap();
    for value in 0..100_u8 {
        other.write(None, "/e/a", &[value]).unwrap();
        other.write(None, "/e/b", &[value]).unwrap();
    }
    store.read(None, "/").unwrap();
    let events = events(&*store);
    assert!(events.len() < 10, "{events:?}");
    assert_eq!(events[..3], [event("/e", "t"), event("/e/a", "t"), event("/e/b", "t")]);
}

pub(crate) fn events_between_replies(world: &World) {
    let store = world.client(0);
    store.watch("/b", "t").unwrap();
    // Requests that make events of their own: replies and events come mixed.
    for n in 0..50 {
        let path = format!("/b/{n}");
        store.write(None, &path, b"v").unwrap();
        assert_eq!(store.read(None, &path).unwrap(), b"v");
    }
    // What came along with a reply makes the descriptor readable all the same.
    assert!(readable(&*store, 0));
    let seen = events(&*store);
    assert_eq!(seen[0], event("/b", "t"));
    assert_eq!(seen[1..], (0..50).map(|n| event(&format!("/b/{n}"), "t")).collect::<Vec<_>>());
    assert!(!readable(&*store, 0));
}
