//! What the fake has beyond a store: faults, and several clients.
#![cfg(feature = "test-utils")]

use xen_store::fake::FakeStore;
use xen_store::{Error, Op, Perm, Store};

#[test]
fn injected_faults_hit_their_operation_only_and_run_out() {
    let store = FakeStore::new();
    store.fail_next(Op::Write, 2, "ENOSPC");
    store.fail_next(Op::Write, 1, "EIO");
    store.fail_next(Op::TransactionEnd, 1, "EAGAIN");
    store.mkdir(None, "/a").unwrap();
    for errno in ["ENOSPC", "ENOSPC", "EIO"] {
        let error = store.write(None, "/a", b"1").unwrap_err();
        assert!(matches!(&error, Error::Refused { errno: e, .. } if e == errno), "{error}");
        assert_eq!(store.read(None, "/a").unwrap(), b"");
    }
    store.connect(0).write(None, "/a", b"1").unwrap();
    let tx = store.transaction_start().unwrap();
    assert!(store.transaction_end(tx, true).unwrap_err().is_again());
}

#[test]
fn every_operation_can_be_made_to_fail() {
    let store = FakeStore::new();
    let tx = store.transaction_start().unwrap();
    let perms = [Perm::new(0, xen_store::Access::None)];
    type Call<'a> = &'a dyn Fn() -> Result<(), Error>;
    let calls: [(Op, Call<'_>); 13] = [
        (Op::Read, &|| store.read(None, "/").map(drop)),
        (Op::Write, &|| store.write(None, "/", b"")),
        (Op::Mkdir, &|| store.mkdir(None, "/")),
        (Op::Rm, &|| store.rm(None, "/gone")),
        (Op::Directory, &|| store.directory(None, "/").map(drop)),
        (Op::GetPerms, &|| store.get_perms(None, "/").map(drop)),
        (Op::SetPerms, &|| store.set_perms(None, "/", &perms)),
        (Op::Watch, &|| store.watch("/", "t")),
        (Op::Unwatch, &|| store.unwatch("/", "t")),
        (Op::TransactionStart, &|| store.transaction_start().map(drop)),
        (Op::TransactionEnd, &|| store.transaction_end(tx, false)),
        (Op::GetDomainPath, &|| store.domain_path(1).map(drop)),
        (Op::WatchEvent, &|| store.next_event().map(drop)),
    ];
    for (op, call) in calls {
        store.fail_next(op, 1, "EIO");
        let result = call();
        let expected = matches!(&result, Err(Error::Refused { op: at, errno, .. }) if *at == op && errno == "EIO");
        assert!(expected, "{op:?}: {result:?}");
        call().unwrap();
    }
}

#[test]
fn transactions_belong_to_their_client_and_die_with_it() {
    let hub = FakeStore::new();
    let client = hub.connect(0);
    let tx = client.transaction_start().unwrap();
    client.write(Some(tx), "/a", b"").unwrap();
    assert!(hub.transaction_end(tx, true).unwrap_err().is_not_found());
    drop(client);
    assert!(hub.transaction_end(tx, true).unwrap_err().is_not_found());
    assert!(hub.read(None, "/a").unwrap_err().is_not_found());
}

#[test]
fn a_new_domain_has_a_home_that_it_can_read() {
    let hub = FakeStore::new();
    hub.introduce_domain(4);
    let guest = hub.connect(4);
    assert_eq!(guest.read(None, "/local/domain/4/domid").unwrap(), b"4");
    assert!(guest.write(None, "/local/domain/4/x", b"").unwrap_err().is_permission());
    assert!(hub.connect(5).read(None, "/local/domain/4/domid").unwrap_err().is_permission());
    hub.release_domain(4);
    assert_eq!(hub.read(None, "/local/domain/4/domid").unwrap(), b"4");
}

#[test]
fn a_refusal_is_no_lost_connection_and_a_dead_daemon_is() {
    let store = FakeStore::new();
    assert!(!store.read(None, "/nothing/there").unwrap_err().is_disconnected());
    store.disconnect();
    assert!(store.read(None, "/nothing/there").unwrap_err().is_disconnected());
}

#[test]
fn a_daemon_that_comes_back_serves_new_connections_only() {
    let store = FakeStore::new();
    store.write(None, "/a", b"1").unwrap();
    store.watch("/a", "t").unwrap();
    store.disconnect();
    let again = store.connect(0);
    assert_eq!(again.read(None, "/a").unwrap(), b"1");
    assert!(again.next_event().unwrap().is_none(), "watches belong to their connection");
    assert!(store.next_event().unwrap_err().is_disconnected());
    again.restart_empty();
    assert!(again.connect(0).read(None, "/a").unwrap_err().is_not_found());
}
