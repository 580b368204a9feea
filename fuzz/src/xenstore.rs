//! What xenstore says: arbitrary bytes from the daemon to the client, and arbitrary contents of the
//! nodes that the backend reads.
//!
//! The first byte of an input says which.
//!
//! 0 is a daemon that sends all it ever sends at once: two bytes choose the calls ([`CALLS`], in
//! turn from there), the rest is what it sends. 2 is one that waits for requests: after the two
//! bytes each answer is a type (0: the request's; 255: no header), a length and a payload.
//!
//! 1 are nodes: a kind, a domain and a device, then values, each a node ([`NODES`]), a length and
//! its bytes; what is left is the path of a watch event.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use xen_store::XenbusState;
use xen_store::fake::FakeStore;
use xen_store::{Error, Store, StoreExt, XenStore};

use xen_virtio_backend::node::{DeviceId, DeviceNode, Kind, NodeError, NodeReader};

use crate::input::Input;
use crate::nodes::DiskNodes;

/// The nodes of a device that the backend reads.
pub const NODES: [&str; 9] = [
    "specification",
    "transport",
    "frontend-id",
    "params",
    "mode",
    "base",
    "irq",
    "grant_usage",
    "state",
];

/// `XS_WATCH_EVENT`
const EVENT: u8 = 15;

/// What an input came to, for the tests of the seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// How many calls of the client succeeded, and how many watch events came.
    Daemon(u32, u32),
    /// The nodes can be served.
    Nodes(bool),
}

/// Carries out one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    match input.u8() % 3 {
        0 => hasty(&mut input),
        1 => nodes(&mut input),
        _ => polite(&mut input),
    }
}

type Call = fn(&XenStore) -> Result<(), Error>;

/// What is asked of the client.
pub const CALLS: [Call; 10] = [
    |store| store.read(None, "/a").map(drop),
    |store| {
        let names = store.directory(None, "/d")?;
        assert!(names.iter().all(|name| !name.is_empty() && !name.contains(['/', '\0'])));
        assert!(names.len() <= 4 << 20, "{} names", names.len());
        Ok(())
    },
    |store| {
        let perms = store.get_perms(None, "/a")?;
        assert!(!perms.is_empty());
        // What was understood can be said again.
        assert!(perms.iter().all(|perm| perm.to_string().parse() == Ok(*perm)));
        Ok(())
    },
    |store| store.watch("/a", "t"),
    |store| store.transaction_start().map(drop),
    |store| store.domain_path(1).map(drop),
    |store| store.write(None, "/a", b"v"),
    |store| store.transaction(|tx| store.read(Some(tx), "/a").map(drop)),
    |store| store.read_string(None, "/a").map(drop),
    |store| store.unwatch("/a", "t"),
];

/// A daemon that says all it ever says at once, and hangs up.
fn hasty(input: &mut Input<'_>) -> Report {
    let (first, count) = (input.u8(), input.u8());
    let bytes = input.rest();
    let (mut daemon, client) = UnixStream::pair().expect("a pair of sockets");
    daemon.write_all(bytes).expect("an input that fits in a socket");
    daemon.shutdown(Shutdown::Write).expect("an end");
    call(client, first, count, bytes.len())
}

/// A daemon that answers one request after the other, and hangs up when it knows no more.
fn polite(input: &mut Input<'_>) -> Report {
    let (first, count) = (input.u8(), input.u8());
    let answers = input.rest();
    let (daemon, client) = UnixStream::pair().expect("a pair of sockets");
    DAEMON.with(|thread| {
        thread.connections.send((daemon, answers.to_vec())).expect("a daemon that doesn't panic");
        let report = call(client, first, count, answers.len());
        thread.ended.recv().expect("a daemon that doesn't panic");
        report
    })
}

/// A thread that is a daemon for one connection after the other: to start one for each input would
/// take longer than most inputs do.
struct Daemon {
    connections: Sender<(UnixStream, Vec<u8>)>,
    ended: Receiver<()>,
}

thread_local! {
    static DAEMON: Daemon = Daemon::start();
}

impl Daemon {
    fn start() -> Self {
        // Client and daemon take turns. On two processors each turn would begin with waking an idle
        // one, which takes longer than what is done in it.
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).expect("a processor that this thread runs on");
        let (connections, accepted) = mpsc::channel::<(UnixStream, Vec<u8>)>();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            for (connection, answers) in accepted {
                serve(connection, Input::new(&answers));
                if end.send(()).is_err() {
                    break;
                }
            }
        });
        Self { connections, ended }
    }
}

/// Gives one answer to each request, until there are no more or the client has hung up.
fn serve(mut daemon: UnixStream, mut answers: Input<'_>) {
    let mut header = [0; 16];
    let mut asked = false;
    while !answers.is_empty() {
        if !asked && !receive(&mut daemon, &mut header) {
            return;
        }
        let (kind, len) = (answers.u8(), answers.u8());
        let payload = answers.bytes(len.into());
        let mut answer = header;
        if kind != 0 {
            answer[..4].copy_from_slice(&u32::from(kind).to_le_bytes());
        }
        answer[12..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        let answer = if kind == u8::MAX { &[][..] } else { &answer };
        if !send(&daemon, &[answer, payload].concat()) {
            return;
        }
        // The client waits on after an event, and after what may be part of a message.
        asked = kind == EVENT;
        if kind == u8::MAX {
            break;
        }
    }
    let _ = daemon.shutdown(Shutdown::Write);
    let _ = io::copy(&mut daemon, &mut io::sink());
}

/// Sends all of `bytes`; whether there was a client to take them. A fuzzer's process doesn't ignore
/// SIGPIPE.
fn send(daemon: &UnixStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::net::send(daemon, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Takes a request; whether one came.
fn receive(daemon: &mut UnixStream, header: &mut [u8; 16]) -> bool {
    if daemon.read_exact(header).is_err() {
        return false;
    }
    let [.., a, b, c, d] = *header;
    let len = u32::from_le_bytes([a, b, c, d]);
    assert!(len <= 4096, "a request of {len} bytes");
    daemon.read_exact(&mut vec![0; len as usize]).is_ok()
}

/// Asks a daemon that sends at most `most` bytes of payload, or else of everything.
fn call(client: UnixStream, first: u8, count: u8, most: usize) -> Report {
    client.set_nonblocking(true).expect("a descriptor that doesn't block");
    let mut store = XenStore::new(client.into()).expect("a client");
    store.set_reply_timeout(Duration::from_secs(30));

    let started = Instant::now();
    let (mut succeeded, mut events, mut lost) = (0, 0, false);
    for nth in 0..count % 16 {
        let call = CALLS[usize::from(first.wrapping_add(nth)) % CALLS.len()];
        match call(&store) {
            Ok(()) => {
                assert!(!lost, "a connection that was lost answers");
                succeeded += 1;
            }
            Err(error) => {
                let _ = error.to_string();
                let over = matches!(error, Error::Io { .. } | Error::Protocol { .. });
                assert!(over || !lost, "{error} after the connection was lost");
                lost |= over;
            }
        }
    }
    // No event is shorter than two strings.
    for _ in 0..=most / 2 {
        match store.next_event() {
            Ok(Some(event)) => {
                events += 1;
                assert!(!event.path.contains('\0') && !event.token.contains('\0'));
            }
            Ok(None) => break,
            Err(_) => {
                lost = true;
                break;
            }
        }
    }
    assert!(events as usize <= most / 2, "more events than were sent");
    assert!(!lost || store.read(None, "/").is_err(), "an answer from nobody");
    assert!(started.elapsed() < Duration::from_secs(20), "it waited for a daemon that hung up");
    Report::Daemon(succeeded, events)
}

fn nodes(input: &mut Input<'_>) -> Report {
    const BACKEND: &str = "/local/domain/0/backend";
    let kind = Kind::ALL[usize::from(input.u8()) % Kind::ALL.len()];
    let id = DeviceId { kind, domid: input.u16(), devid: input.u32() };
    let path = id.path(BACKEND);
    assert_eq!(DeviceId::from_path(BACKEND, &path), Some(id));
    let store = FakeStore::new();
    for _ in 0..input.u8() % 16 {
        let node = NODES[usize::from(input.u8()) % NODES.len()];
        let len = input.u8();
        store.write(None, &format!("{path}/{node}"), input.bytes(len.into())).expect("a write");
    }

    let reader = NodeReader::new(&store, None, id, &path);
    let read = DiskNodes::read(&reader).and_then(|disk| Ok((disk, DeviceNode::read(&reader)?)));
    match &read {
        Ok((disk, node)) => {
            assert!(disk.image.is_absolute() && disk.image != Path::new(""));
            assert!((32..1020).contains(&node.irq), "interrupt {}", node.irq);
            let (start, end) = node.window().into_inner();
            assert!(start % 0x200 == 0 && end - start == 0x1ff && end < 1 << 48, "{start:#x}");
        }
        Err(error) => {
            assert!(matches!(error, NodeError::Missing { .. } | NodeError::Invalid { .. }));
            // It goes into a node and a log.
            assert!(error.to_string().len() < 1024, "a message of any length");
        }
    }
    if let Ok(state) = store.read(None, &format!("{path}/state")) {
        let state = XenbusState::parse(&String::from_utf8_lossy(&state));
        assert_eq!(XenbusState::parse(state.as_str()), state);
    }
    let event = String::from_utf8_lossy(input.rest());
    for event in [event.clone(), format!("{BACKEND}/{event}").into()] {
        if let Some(id) = DeviceId::from_path(BACKEND, &event) {
            assert_eq!(DeviceId::from_path(BACKEND, &id.path(BACKEND)), Some(id));
        }
    }
    Report::Nodes(read.is_ok())
}
