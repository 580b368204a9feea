//! A daemon that answers nonsense, stops in the middle, or dies: an error, soon, never a panic or a hang.
#![cfg(all(feature = "test-utils", not(miri)))]

mod support;

use std::io::{ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use support::{message, receive};
use xen_store::fake::FakeStore;
use xen_store::{Error, Store, XenStore};

const ERROR: u32 = 16;
const EVENT: u32 = 15;

/// A client whose daemon answers each request with what `script` makes of its number, type and id.
fn scripted(mut script: impl FnMut(usize, u32, u32) -> Vec<u8> + Send + 'static) -> XenStore {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let mut number = 0;
        while let Some(([kind, id, _], _)) = receive(&mut ours) {
            if ours.write_all(&script(number, kind, id)).is_err() {
                break;
            }
            number += 1;
        }
    });
    XenStore::new(theirs.into()).unwrap()
}

/// A client whose every request gets the reply that `reply` makes of its type and id.
fn answered(reply: impl Fn(u32, u32) -> Vec<u8> + Send + 'static) -> XenStore {
    scripted(move |_, kind, id| reply(kind, id))
}

fn readable(store: &XenStore) -> bool {
    let mut poll = libc::pollfd { fd: store.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one pollfd, and outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1
}

/// The connection is given up for good, and says so at once.
fn assert_lost(store: &XenStore) {
    let start = Instant::now();
    for result in
        [store.read(None, "/").map(drop), store.watch("/", "t"), store.next_event().map(drop)]
    {
        let Err(Error::Io { source, .. }) = result else { panic!("{result:?}") };
        assert_eq!(source.kind(), ErrorKind::NotConnected);
        assert!(source.to_string().starts_with("the connection was lost: "), "{source}");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(readable(store));
}

fn assert_protocol<T: std::fmt::Debug>(store: &XenStore, result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Protocol { .. })), "{result:?}");
    assert_lost(store);
}

#[test]
fn a_reply_to_something_else() {
    let other_id = answered(|kind, id| message(kind, id + 1, 0, b"v"));
    assert_protocol(&other_id, other_id.read(None, "/"));
    let other_type = answered(|kind, id| message(kind + 1, id, 0, b"ENOENT\0"));
    assert_protocol(&other_type, other_type.read(None, "/"));
    let unasked =
        answered(|kind, id| [message(kind, id, 0, b"v"), message(kind, id, 0, b"v")].concat());
    let result = unasked.read(None, "/").and_then(|_| unasked.next_event());
    assert_protocol(&unasked, result);
}

#[test]
fn a_reply_of_absurd_length() {
    for len in [4097, u32::MAX] {
        let store = answered(move |kind, id| {
            let mut reply = message(kind, id, 0, b"");
            reply[12..].copy_from_slice(&len.to_le_bytes());
            reply
        });
        assert_protocol(&store, store.read(None, "/"));
    }
}

#[test]
fn absurd_payloads() {
    type Call = fn(&XenStore) -> Result<(), Error>;
    let directory: Call = |s| s.directory(None, "/").map(drop);
    let perms: Call = |s| s.get_perms(None, "/").map(drop);
    let start: Call = |s| s.transaction_start().map(drop);
    let domain: Call = |s| s.domain_path(1).map(drop);
    let cases: [(Call, &[u8]); 14] = [
        (directory, b"a"),
        (directory, b"a\0\0"),
        (directory, b"a/b\0"),
        (directory, b"\xff\0"),
        (perms, b""),
        (perms, b"r1"),
        (perms, b"r99999\0"),
        (start, b""),
        (start, b"0\0"),
        (start, b"4294967296\0"),
        (start, b"one\0"),
        (start, b"1\x002\0"),
        (domain, b""),
        (domain, b"/local\0/domain\0"),
    ];
    for (call, payload) in cases {
        let store = answered(|kind, id| message(kind, id, 0, payload));
        assert_protocol(&store, call(&store));
    }
}

#[test]
fn absurd_errors() {
    for payload in
        [&b""[..], b"\0", b"ENOENT", b"EN\0ENT\0", b"no such file\0", b"\xff\0", &[b'E'; 4096]]
    {
        let store = answered(|_, id| message(ERROR, id, 0, payload));
        assert_protocol(&store, store.read(None, "/"));
    }
    // One we have not heard of is an error like the others.
    let store = answered(|_, id| message(ERROR, id, 0, b"EQUOTA\0"));
    let error = store.write(None, "/a", b"").unwrap_err();
    assert_eq!(error.to_string(), "cannot write /a: EQUOTA");
    assert!(matches!(store.read(None, "/a"), Err(Error::Refused { .. })));
}

#[test]
fn absurd_events() {
    for payload in [&b""[..], b"/a", b"/a\0", b"/a\0t", b"/a\0t\0x\0", b"\xff\0t\0"] {
        let in_reply = answered(|kind, id| {
            [message(EVENT, 0, 0, payload), message(kind, id, 0, b"v")].concat()
        });
        assert_protocol(&in_reply, in_reply.read(None, "/"));
        let (mut daemon, client) = UnixStream::pair().unwrap();
        let alone = XenStore::new(client.into()).unwrap();
        daemon.write_all(&message(EVENT, 0, 0, payload)).unwrap();
        assert_protocol(&alone, alone.next_event());
    }
}

#[test]
fn events_before_the_end_are_still_told() {
    let (mut daemon, client) = UnixStream::pair().unwrap();
    let store = XenStore::new(client.into()).unwrap();
    daemon.write_all(&message(EVENT, 9, 9, b"/a\0t\0")).unwrap();
    drop(daemon);
    assert_eq!(store.next_event().unwrap().unwrap().path, "/a");
    assert_lost(&store);
}

#[test]
fn an_event_read_along_with_a_reply_is_told() {
    let store = answered(|kind, id| {
        [message(kind, id, 0, b"v"), message(EVENT, 0, 0, b"/a\0t\0")].concat()
    });
    assert_eq!(store.read(None, "/").unwrap(), b"v");
    assert!(readable(&store));
    assert_eq!(store.next_event().unwrap().unwrap().path, "/a");
    assert!(!readable(&store));
}

#[test]
fn an_event_in_pieces_is_waited_for_elsewhere() {
    let (mut daemon, client) = UnixStream::pair().unwrap();
    let store = XenStore::new(client.into()).unwrap();
    for byte in message(EVENT, 0, 0, b"/a\0t\0") {
        assert_eq!(store.next_event().unwrap(), None);
        daemon.write_all(&[byte]).unwrap();
        assert!(readable(&store));
    }
    assert_eq!(store.next_event().unwrap().unwrap().token, "t");
    assert!(!readable(&store));
}

#[test]
fn a_flood_of_events_ends_the_connection() {
    let (mut daemon, client) = UnixStream::pair().unwrap();
    let store = XenStore::new(client.into()).unwrap();
    let flood = thread::spawn(move || {
        let event = |n| message(EVENT, 0, 0, format!("/{n}\0t\0").as_bytes());
        let events: Vec<u8> = (0..70_000).flat_map(event).collect();
        // The request stays unanswered, and the client hangs up before it took them all, or after.
        if daemon.write_all(&events).is_ok() {
            while receive(&mut daemon).is_some() {}
        }
    });
    assert!(matches!(store.read(None, "/"), Err(Error::Protocol { .. })));
    // The events that fit are told before the end.
    for n in 0..65_536 {
        assert_eq!(store.next_event().unwrap().unwrap().path, format!("/{n}"));
    }
    assert_lost(&store);
    drop(store);
    flood.join().unwrap();
}

#[test]
fn a_daemon_that_dies_or_falls_silent_in_mid_reply() {
    for silent in [false, true] {
        for cut in [0, 1, 15, 16, 20] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let daemon = thread::spawn(move || {
                let ([kind, id, _], _) = receive(&mut ours).unwrap();
                ours.write_all(&message(kind, id, 0, b"value")[..cut]).unwrap();
                silent.then_some(ours)
            });
            let mut store = XenStore::new(theirs.into()).unwrap();
            if silent {
                store.set_reply_timeout(Duration::from_millis(50));
            }
            let result = store.read(None, "/");
            let Err(Error::Io { source, .. }) = result else { panic!("{result:?}") };
            let expected = if silent { ErrorKind::TimedOut } else { ErrorKind::UnexpectedEof };
            assert_eq!(source.kind(), expected);
            assert_lost(&store);
            drop(daemon.join());
        }
    }
    let (_, gone) = UnixStream::pair().unwrap();
    let store = XenStore::new(gone.into()).unwrap();
    assert!(matches!(store.read(None, "/"), Err(Error::Io { .. })));
    assert_lost(&store);
}

#[test]
fn a_directory_that_never_ends_or_never_holds_still() {
    let part = |reply: fn(usize) -> Vec<u8>| {
        scripted(move |number, kind, id| match kind {
            1 => message(ERROR, id, 0, b"E2BIG\0"),
            _ => message(kind, id, 0, &reply(number)),
        })
    };
    let empty = part(|_| b"1\0".to_vec());
    assert_protocol(&empty, empty.directory(None, "/d"));
    let endless = part(|_| [b"1\0", &b"abcdefg\0".repeat(500)[..]].concat());
    assert_protocol(&endless, endless.directory(None, "/d"));
    let moving = part(|n| format!("{n}\0a\0").into_bytes());
    let error = moving.directory(None, "/d").unwrap_err();
    assert!(error.is_again(), "{error}");
    let settles = part(|n| match n {
        1 => b"1\0a\0".to_vec(),
        2 => b"2\0c\0\0".to_vec(),
        3 => b"2\0b\0".to_vec(),
        _ => b"2\0c\0\0".to_vec(),
    });
    assert_eq!(settles.directory(None, "/d").unwrap(), ["b", "c"]);
    let old = scripted(|number, _, id| {
        message(ERROR, id, 0, if number == 0 { b"E2BIG\0" } else { b"ENOSYS\0" })
    });
    assert_eq!(old.directory(None, "/d").unwrap_err().to_string(), "cannot list /d: E2BIG");
}

#[test]
fn a_watch_answered_by_the_kernel_has_no_id() {
    // Linux xenbus_dev_frontend.c answers XS_WATCH itself, with 0 for an id.
    let store = answered(|kind, id| message(kind, if kind == 4 { 0 } else { id }, 0, b"OK\0"));
    store.mkdir(None, "/a").unwrap();
    store.watch("/a", "t").unwrap();
    store.rm(None, "/a").unwrap();
    // A NUL would end the token early: it is not even sent.
    assert_eq!(store.watch("/a", "t\0u").unwrap_err().to_string(), "cannot watch /a: EINVAL");
}

#[test]
fn a_socket_by_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    assert_eq!(XenStore::connect_socket(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let ([kind, id, _], payload) = receive(&mut stream).unwrap();
        // Late, and in pieces: the client's descriptor does not block.
        for piece in message(kind, id, 0, &payload).chunks(3) {
            thread::sleep(Duration::from_millis(2));
            stream.write_all(piece).unwrap();
        }
    });
    let store = XenStore::connect_socket(&path).unwrap();
    assert_eq!(store.read(None, "/a").unwrap(), b"/a\0");
    daemon.join().unwrap();
    assert!(XenStore::open_device(Path::new("/nonexistent/xenbus")).is_err());
}

#[test]
fn threads_share_a_client() {
    let store = support::real_client(FakeStore::new());
    thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..50_u32 {
                    let path = format!("/thread/{n}");
                    store.write(None, &path, &round.to_le_bytes()).unwrap();
                    assert_eq!(store.read(None, &path).unwrap(), round.to_le_bytes());
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes before the daemon hangs up, every call returns.
    #[test]
    fn any_bytes_at_all(
        bytes in vec(any::<u8>(), 0..200),
        kind in prop_oneof![Just(EVENT), Just(ERROR), 0_u32..24],
        payload in vec(prop_oneof![Just(0), any::<u8>()], 0..40),
    ) {
        // A header that makes sense, then what follows.
        let stream = [message(kind, 0, 0, &payload), bytes].concat();
        let (mut daemon, client) = UnixStream::pair().unwrap();
        daemon.write_all(&stream).unwrap();
        daemon.shutdown(std::net::Shutdown::Write).unwrap();
        let store = XenStore::new(client.into()).unwrap();
        let _ = store.watch("/a", "t");
        let _ = store.directory(None, "/a");
        while let Ok(Some(_)) = store.next_event() {}
        prop_assert!(store.read(None, "/").is_err());
    }
}
