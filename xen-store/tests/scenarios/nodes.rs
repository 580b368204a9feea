//! Nodes: their values, names, children and permissions.

use xen_store::{Access, Error, Perm, StoreExt, XenbusState};

use crate::{World, errno};

pub(crate) fn values(world: &World) {
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

pub(crate) fn missing_nodes(world: &World) {
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

pub(crate) fn xenbus_states(world: &World) {
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

pub(crate) fn paths(world: &World) {
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

pub(crate) fn sizes(world: &World) {
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

pub(crate) fn directories(world: &World) {
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

pub(crate) fn large_directories(world: &World) {
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

pub(crate) fn removal(world: &World) {
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

pub(crate) fn permissions(world: &World) {
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

pub(crate) fn inherited_permissions(world: &World) {
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
