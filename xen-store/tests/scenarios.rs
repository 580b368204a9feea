//! What a client may rely on, asked of the fake and, over the wire, of the real client: both agree.
#![cfg(all(feature = "test-utils", not(miri)))] // Miri does not know poll(2)

mod support;

use std::os::fd::AsRawFd;

use support::real_client;
use xen_store::fake::FakeStore;
use xen_store::{Access, Error, Perm, Store, StoreExt, WatchEvent, XenbusState};

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

fn values(world: &World) {
    let (a, b) = (world.client(0), world.client(0));
    a.write(None, "/a/b", b"x").unwrap();
    assert_eq!(b.read(None, "/a/b").unwrap(), b"x");
    assert_eq!(b.read(None, "/a").unwrap(), b"");
    let bytes: Vec<u8> = (0..=255).collect();
    a.write(None, "/a/b", &bytes).unwrap();
    assert_eq!(b.read(None, "/a/b").unwrap(), bytes);
    assert!(
        matches!(b.read_string(None, "/a/b"), Err(Error::NotText { path, .. }) if path == "/a/b")
    );
    a.write(None, "/a/b", "é".as_bytes()).unwrap();
    assert_eq!(b.read_string(None, "/a/b").unwrap(), "é");
    a.mkdir(None, "/a/b").unwrap();
    assert_eq!(b.read_string(None, "/a/b").unwrap(), "é");
    for (text, number) in [("0", 0), ("33554432", 0x200_0000), ("0x2000200", 0x200_0200)] {
        a.write(None, "/a/n", text.as_bytes()).unwrap();
        assert_eq!(b.read_number(None, "/a/n").unwrap(), number);
    }
    for text in ["", "0x", "-1", "0x-1", " 1", "banana", "18446744073709551616"] {
        a.write(None, "/a/n", text.as_bytes()).unwrap();
        let error = b.read_number(None, "/a/n").unwrap_err();
        assert!(matches!(error, Error::NotNumber { path, .. } if path == "/a/n"), "{text:?}");
    }
    assert_eq!(a.domain_path(7).unwrap(), "/local/domain/7");
}

fn missing_nodes(world: &World) {
    let store = world.client(0);
    let error = store.read(None, "/no/such").unwrap_err();
    assert!(error.is_not_found() && !error.is_permission() && !error.is_again());
    assert_eq!(error.to_string(), "cannot read /no/such: ENOENT");
    assert_eq!(errno(store.directory(None, "/no")), "ENOENT");
    assert_eq!(errno(store.get_perms(None, "/no")), "ENOENT");
    assert_eq!(errno(store.set_perms(None, "/no", &[Perm::new(0, Access::None)])), "ENOENT");
    assert!(!store.exists(None, "/no").unwrap());
    assert!(store.exists(None, "/").unwrap());
    assert_eq!(store.lookup(None, "/no").unwrap(), None);
    assert_eq!(store.children(None, "/no/such").unwrap(), Vec::<String>::new());
    store.write(None, "/is/there", b"so").unwrap();
    assert_eq!(store.lookup(None, "/is/there").unwrap().as_deref(), Some("so"));
    assert_eq!(store.children(None, "/is").unwrap(), ["there"]);
    // Only a missing node is no error.
    assert!(matches!(store.lookup(None, "//"), Err(Error::Refused { .. })));
    assert!(matches!(store.children(None, "//"), Err(Error::Refused { .. })));
}

fn xenbus_states(world: &World) {
    use XenbusState::{Closing, InitWait, Initialising, Unknown};
    let (backend, toolstack) = (world.client(0), world.client(0));
    assert_eq!(backend.xenbus_state(None, "/d").unwrap(), None);
    assert!(!backend.change_xenbus_state("/d", Initialising, InitWait).unwrap());
    assert!(!backend.exists(None, "/d").unwrap(), "a device that has gone stays gone");
    toolstack.write(None, "/d/state", b"1").unwrap();
    assert!(backend.change_xenbus_state("/d", Initialising, InitWait).unwrap());
    assert_eq!(toolstack.read(None, "/d/state").unwrap(), b"2");
    toolstack.write(None, "/d/state", b"5").unwrap();
    assert!(!backend.change_xenbus_state("/d", Initialising, InitWait).unwrap());
    assert_eq!(toolstack.xenbus_state(None, "/d").unwrap(), Some(Closing), "not overwritten");
    toolstack.write(None, "/d/state", b"\xff").unwrap();
    assert_eq!(backend.xenbus_state(None, "/d").unwrap(), Some(Unknown));
}

fn paths(world: &World) {
    let store = world.client(0);
    for path in ["", "/a/", "//", "/a//b", "/a b", "/a\0b", "/é", "/a:b", "a/", "/a\n"] {
        assert_eq!(errno(store.read(None, path)), "EINVAL", "{path:?}");
        assert_eq!(errno(store.write(None, path, b"")), "EINVAL", "{path:?}");
        assert_eq!(errno(store.watch(path, "t")), "EINVAL", "{path:?}");
        assert_eq!(errno(store.rm(None, path)), "EINVAL", "{path:?}");
    }
    assert_eq!(errno(store.watch("/a", "to\0ken")), "EINVAL");
    store.write(None, "/aZ09-_@/b", b"").unwrap();
    assert_eq!(errno(store.rm(None, "/")), "EINVAL");
}

fn sizes(world: &World) {
    let store = world.client(0);
    let path = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
    store.write(None, &path(3072), &[7; 4096 - 3072 - 1]).unwrap();
    assert_eq!(store.read(None, &path(3072)).unwrap(), [7; 4096 - 3072 - 1]);
    assert_eq!(errno(store.write(None, &path(3072), &[7; 4096 - 3072])), "E2BIG");
    assert_eq!(errno(store.write(None, &path(3073), b"")), "EINVAL");
    assert_eq!(errno(store.read(None, &path(3073))), "EINVAL");
    store.write(None, &"a".repeat(2048), b"").unwrap();
    assert_eq!(errno(store.write(None, &"a".repeat(2049), b"")), "EINVAL");
    store.write(None, "/v", &[1; 4093]).unwrap();
    assert_eq!(errno(store.write(None, "/v", &[1; 4094])), "E2BIG");
    assert_eq!(store.read(None, "/v").unwrap(), [1; 4093]);
    assert_eq!(errno(store.watch("/v", &"t".repeat(4093))), "E2BIG");
}

fn directories(world: &World) {
    let store = world.client(0);
    store.mkdir(None, "/d").unwrap();
    assert_eq!(store.directory(None, "/d").unwrap(), Vec::<String>::new());
    for path in ["/d/b/deep/er", "/d/a", "/d-not", "/d/c"] {
        store.write(None, path, b"").unwrap();
    }
    let mut names = store.directory(None, "/d").unwrap();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(store.directory(None, "/").unwrap().contains(&"d-not".to_owned()));
}

fn large_directories(world: &World) {
    let store = world.client(0);
    let name = |n: usize| format!("{n:04}-{}", "x".repeat(n % 50));
    let tx = store.transaction_start().unwrap();
    for n in 0..600 {
        store.write(Some(tx), &format!("/large/{}", name(n)), b"").unwrap();
    }
    let list = |tx| {
        let mut names = store.directory(tx, "/large").unwrap();
        names.sort();
        names
    };
    let expected: Vec<String> = (0..600).map(name).collect();
    assert_eq!(list(Some(tx)), expected);
    store.transaction_end(tx, true).unwrap();
    assert_eq!(list(None), expected);
}

fn removal(world: &World) {
    let store = world.client(0);
    for path in ["/r/a/b", "/r/ab", "/r/a/c"] {
        store.write(None, path, b"1").unwrap();
    }
    store.rm(None, "/r/a").unwrap();
    assert_eq!(errno(store.read(None, "/r/a/b")), "ENOENT");
    assert_eq!(store.directory(None, "/r").unwrap(), ["ab"]);
    store.rm(None, "/r/a").unwrap();
    assert_eq!(errno(store.rm(None, "/r/a/b")), "ENOENT");
}

fn permissions(world: &World) {
    let dom0 = world.client(0);
    dom0.write(None, "/p/shared", b"0").unwrap();
    let perms = [
        Perm::new(1, Access::None),
        Perm::new(2, Access::Read),
        Perm::new(3, Access::Write),
        Perm::new(4, Access::Both),
    ];
    dom0.set_perms(None, "/p/shared", &perms).unwrap();
    assert_eq!(dom0.get_perms(None, "/p/shared").unwrap(), perms);
    for (domid, read, write) in [
        (0, true, true),
        (1, true, true),
        (2, true, false),
        (3, false, true),
        (4, true, true),
        (5, false, false),
    ] {
        let client = world.client(domid);
        let result = client.read(None, "/p/shared");
        assert_eq!(result.is_ok(), read, "domain {domid}");
        assert!(read || result.unwrap_err().is_permission());
        assert_eq!(client.get_perms(None, "/p/shared").is_ok(), read, "domain {domid}");
        assert_eq!(client.directory(None, "/p/shared").is_ok(), read, "domain {domid}");
        let result = client.write(None, "/p/shared", b"1");
        assert_eq!(result.is_ok(), write, "domain {domid}");
        assert!(write || result.unwrap_err().is_permission());
        // A missing node below it: only who may read it learns that it is missing.
        let result = client.read(None, "/p/shared/no").unwrap_err();
        assert_eq!(result.is_not_found(), read, "domain {domid}");
        let owner = domid == 0 || domid == 1;
        assert_eq!(client.set_perms(None, "/p/shared", &perms).is_ok(), owner, "domain {domid}");
    }
    assert_eq!(errno(dom0.set_perms(None, "/p/shared", &[])), "EINVAL");
    let given = [Perm::new(2, Access::None)];
    assert_eq!(errno(world.client(1).set_perms(None, "/p/shared", &given)), "EPERM");
    dom0.set_perms(None, "/p/shared", &given).unwrap();
    assert_eq!(errno(world.client(1).read(None, "/p/shared")), "EACCES");
}

fn inherited_permissions(world: &World) {
    let (dom0, guest) = (world.client(0), world.client(5));
    world.hub.introduce_domain(5);
    assert_eq!(guest.read_string(None, "domid").unwrap(), "5");
    assert_eq!(errno(guest.write(None, "data", b"")), "EACCES");
    dom0.mkdir(None, "/local/domain/5/data").unwrap();
    dom0.set_perms(None, "/local/domain/5/data", &[Perm::new(5, Access::None)]).unwrap();
    guest.write(None, "data/a/b", b"").unwrap();
    for path in ["data/a", "data/a/b"] {
        assert_eq!(guest.get_perms(None, path).unwrap(), [Perm::new(5, Access::None)]);
    }
    let shared = [Perm::new(0, Access::None), Perm::new(5, Access::Both)];
    dom0.mkdir(None, "/shared").unwrap();
    dom0.set_perms(None, "/shared", &shared).unwrap();
    guest.write(None, "/shared/a", b"").unwrap();
    let inherited = [Perm::new(5, Access::None), Perm::new(5, Access::Both)];
    assert_eq!(dom0.get_perms(None, "/shared/a").unwrap(), inherited);
    assert_eq!(errno(guest.rm(None, "domid")), "EACCES");
    guest.rm(None, "data/a").unwrap();
    dom0.write(None, "/local/domain/5/data/c", b"").unwrap();
    assert_eq!(
        dom0.get_perms(None, "/local/domain/5/data/c").unwrap(),
        [Perm::new(5, Access::None)]
    );
}

fn watches(world: &World) {
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

fn special_watches(world: &World) {
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

fn relative_paths(world: &World) {
    world.hub.introduce_domain(6);
    let (dom0, guest) = (world.client(0), world.client(6));
    guest.watch("device", "t").unwrap();
    assert_eq!(next(&*guest), event("device", "t"));
    dom0.write(None, "/local/domain/6/device/x", b"1").unwrap();
    assert_eq!(next(&*guest), event("device/x", "t"));
    assert_eq!(guest.read(None, "device/x").unwrap(), b"1");
    assert_eq!(dom0.read_string(None, "domid").unwrap(), "0");
}

fn watches_of_other_domains(world: &World) {
    world.hub.introduce_domain(1);
    world.hub.introduce_domain(2);
    let (dom0, guest) = (world.client(0), world.client(2));
    guest.watch("/local/domain", "t").unwrap();
    assert_eq!(next(&*guest), event("/local/domain", "t"));
    dom0.write(None, "/local/domain/1/secret", b"").unwrap();
    dom0.write(None, "/local/domain/2/open", b"").unwrap();
    assert_eq!(next(&*guest), event("/local/domain/2/open", "t"));
}

fn equal_events(world: &World) {
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

fn events_between_replies(world: &World) {
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

fn transactions(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    other.watch("/t", "t").unwrap();
    assert_eq!(next(&*other), event("/t", "t"));
    let tx = store.transaction_start().unwrap();
    store.write(Some(tx), "/t/a", b"1").unwrap();
    store.mkdir(Some(tx), "/t/b").unwrap();
    store.rm(Some(tx), "/t/b").unwrap();
    store.set_perms(Some(tx), "/t/a", &[Perm::new(3, Access::Read)]).unwrap();
    assert_eq!(store.read(Some(tx), "/t/a").unwrap(), b"1");
    assert_eq!(store.directory(Some(tx), "/t").unwrap(), ["a"]);
    assert_eq!(errno(other.read(None, "/t/a")), "ENOENT");
    assert_eq!(errno(other.read(Some(tx), "/t/a")), "ENOENT");
    assert_eq!(events(&*other), []);
    store.transaction_end(tx, true).unwrap();
    assert_eq!(other.read(None, "/t/a").unwrap(), b"1");
    assert_eq!(other.get_perms(None, "/t/a").unwrap(), [Perm::new(3, Access::Read)]);
    assert!(events(&*other).contains(&event("/t/a", "t")));
    assert_eq!(errno(store.transaction_end(tx, true)), "ENOENT");
    assert_eq!(errno(store.write(Some(tx), "/t/a", b"2")), "ENOENT");
    let tx = store.transaction_start().unwrap();
    store.write(Some(tx), "/t/a", b"2").unwrap();
    store.transaction_end(tx, false).unwrap();
    assert_eq!(other.read(None, "/t/a").unwrap(), b"1");
    assert_eq!(events(&*other), []);
}

fn transaction_conflicts(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.write(None, "/c/a", b"0").unwrap();
    store.write(None, "/c/gone", b"0").unwrap();
    store.write(None, "/c/deep/x", b"0").unwrap();
    type Step<'a> = &'a dyn Fn(&dyn Store, xen_store::TxId);
    let reads: Step<'_> = &|s, tx| drop(s.read(Some(tx), "/c/a"));
    let misses: Step<'_> = &|s, tx| drop(s.read(Some(tx), "/c/new"));
    let lists: Step<'_> = &|s, tx| drop(s.directory(Some(tx), "/c"));
    let writes: Step<'_> = &|s, tx| drop(s.write(Some(tx), "/c/a", b"1"));
    let elsewhere: Step<'_> = &|s, tx| drop(s.write(Some(tx), "/elsewhere/x", b"1"));
    let conflicts = [
        (reads, "/c/a", true),
        (writes, "/c/a", true),
        (misses, "/c/new", true),
        (lists, "/c/fresh", true),
        (reads, "/c/other", false),
        (elsewhere, "/c/a", false),
    ];
    for (step, changed, conflict) in conflicts {
        let tx = store.transaction_start().unwrap();
        step(&*store, tx);
        other.write(None, changed, b"9").unwrap();
        let result = store.transaction_end(tx, true);
        assert_eq!(result.is_err(), conflict, "{changed}");
        assert!(!conflict || result.unwrap_err().is_again());
        assert_eq!(other.read(None, changed).unwrap(), b"9");
    }
    // What a transaction did itself is no conflict.
    let tx = store.transaction_start().unwrap();
    store.rm(Some(tx), "/c/gone").unwrap();
    assert!(!store.exists(Some(tx), "/c/gone").unwrap());
    store.rm(Some(tx), "/c/deep").unwrap();
    assert!(!store.exists(Some(tx), "/c/deep/x").unwrap());
    store.directory(Some(tx), "/c").unwrap();
    store.write(Some(tx), "/c/gone/a", b"").unwrap();
    store.read(Some(tx), "/c/gone/a").unwrap();
    store.transaction_end(tx, true).unwrap();
    assert!(store.exists(None, "/c/gone/a").unwrap());
}

fn transaction_helper(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.write(None, "/h/n", b"1").unwrap();
    let mut runs = 0;
    let result = store.transaction(|tx| {
        runs += 1;
        let value = store.read(Some(tx), "/h/n")?;
        if runs <= 3 {
            other.write(None, "/h/n", &[b'a' + runs])?;
        }
        store.write(Some(tx), "/h/seen", &value)?;
        Ok(value)
    });
    assert_eq!((result.unwrap(), runs), (b"d".to_vec(), 4));
    assert_eq!(other.read(None, "/h/seen").unwrap(), b"d");

    let mut runs = 0_u32;
    let result = store.transaction(|tx| {
        runs += 1;
        store.read(Some(tx), "/h/n")?;
        other.write(None, "/h/n", &runs.to_le_bytes())
    });
    assert!(result.unwrap_err().is_again());
    assert_eq!(runs, 32);

    let result = store.transaction(|tx| {
        store.write(Some(tx), "/h/never", b"")?;
        store.read(Some(tx), "/h/missing")
    });
    assert!(result.unwrap_err().is_not_found());
    assert!(!store.exists(None, "/h/never").unwrap());
}

fn closing(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.watch("/x", "t").unwrap();
    drop(store);
    other.write(None, "/x", b"").unwrap();
}

fn a_dead_daemon(world: &World) {
    let store = world.client(0);
    world.hub.disconnect();
    assert!(readable(&*store, 10_000));
    assert!(matches!(store.read(None, "/"), Err(Error::Io { path, .. }) if path == "/"));
    assert!(matches!(store.next_event(), Err(Error::Io { .. })));
    assert!(matches!(store.transaction_start(), Err(Error::Io { .. })));
    assert!(readable(&*store, 0));
}
