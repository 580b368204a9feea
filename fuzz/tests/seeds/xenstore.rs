//! Daemons that answer, and nodes as libxl writes them.

use xen_virtio_fuzz::xenstore::{CALLS, NODES, Report, run};

const ERROR: u32 = 16;
const EVENT: u32 = 15;

fn message(kind: u32, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [kind, id, 0, payload.len() as u32] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// The calls from `first` on, and what the daemon sends.
fn daemon(first: u8, count: u8, messages: &[Vec<u8>]) -> Vec<u8> {
    assert!(usize::from(first) < CALLS.len());
    [vec![0, first, count], messages.concat()].concat()
}

/// The same, the daemon answering with these types and payloads, one a request.
fn polite(first: u8, count: u8, answers: &[(u8, &[u8])]) -> Vec<u8> {
    assert!(usize::from(first) < CALLS.len());
    let mut bytes = vec![2, first, count];
    for (kind, payload) in answers {
        bytes.extend([*kind, payload.len() as u8]);
        bytes.extend(*payload);
    }
    bytes
}

fn nodes(kind: u8, values: &[(&str, &str)], event: &str) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    bytes.extend(3_u16.to_le_bytes());
    bytes.extend(51712_u32.to_le_bytes());
    bytes.push(values.len() as u8);
    for (node, value) in values {
        let place = NODES.iter().position(|known| known == node).unwrap();
        bytes.extend([place as u8, value.len() as u8]);
        bytes.extend(value.as_bytes());
    }
    bytes.extend(event.as_bytes());
    bytes
}

const DISK: [(&str, &str); 9] = [
    ("specification", "virtio"),
    ("transport", "mmio"),
    ("frontend-id", "3"),
    ("params", "/images/root.img"),
    ("mode", "w"),
    ("base", "33554432"),
    ("irq", "33"),
    ("grant_usage", "0"),
    ("state", "1"),
];

/// The nodes of a disk, one of them with another value.
fn but(node: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    DISK.iter().map(|&(name, old)| (name, if name == node { value } else { old })).collect()
}

/// A seed and what becomes of it.
type Seed = (&'static str, Vec<u8>, Report);

fn seeds() -> Vec<Seed> {
    let read = message(2, 1, b"value");
    let event = message(EVENT, 0, b"/a\0t\0");
    let below = "/local/domain/0/backend/virtio_disk/3/51712/state";
    let called = Report::Daemon;
    vec![
        ("nothing", daemon(0, 1, &[]), called(0, 0)),
        (
            "all-calls",
            polite(
                0,
                10,
                &[
                    (0, b"value"),
                    (0, b"a\0bc\0"),
                    (0, b"n0\0r5\0"),
                    (0, b"OK\0"),
                    (0, b"7\0"),
                    (0, b"/local/domain/1\0"),
                    (0, b"OK\0"),
                    (0, b"8\0"),
                    (0, b"value"),
                    (0, b"OK\0"),
                    (0, b"text"),
                    (0, b"OK\0"),
                ],
            ),
            called(10, 0),
        ),
        (
            "an-event-before-each-answer",
            polite(
                0,
                2,
                &[(15, b"/a\0t\0"), (0, b"v"), (15, b"/b\0t\0"), (15, b"/a\0t\0"), (0, b"c\0")],
            ),
            called(2, 2),
        ),
        ("part-of-a-message", polite(0, 2, &[(255, b"\x02\0\0\0"), (0, b"v")]), called(0, 0)),
        (
            "directory-in-parts",
            polite(
                1,
                1,
                &[
                    (16, b"E2BIG\0"),
                    (0, b"1\0a\0b\0"),
                    (0, b"2\0c\0\0"),
                    (0, b"2\0a\0"),
                    (0, b"2\0c\0\0"),
                ],
            ),
            called(1, 0),
        ),
        (
            "transaction-lost-and-won",
            polite(
                7,
                1,
                &[(0, b"1\0"), (0, b"v"), (16, b"EAGAIN\0"), (0, b"2\0"), (0, b"v"), (0, b"OK\0")],
            ),
            called(1, 0),
        ),
        (
            "no-header",
            polite(0, 2, &[(255, b"\x02\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0")]),
            called(1, 0),
        ),
        ("read", daemon(0, 1, std::slice::from_ref(&read)), called(1, 0)),
        ("read-after-events", daemon(0, 1, &[event.clone(), read.clone()]), called(1, 1)),
        ("read-before-events", daemon(0, 1, &[read, event.clone(), event]), called(1, 1)),
        ("directory", daemon(1, 1, &[message(1, 1, b"a\0bc\0")]), called(1, 0)),
        ("permissions", daemon(2, 1, &[message(3, 1, b"n0\0r5\0b65535\0")]), called(1, 0)),
        ("watch", daemon(3, 1, &[message(4, 0, b"OK\0")]), called(1, 0)),
        ("transaction", daemon(4, 1, &[message(6, 1, b"4294967295\0")]), called(1, 0)),
        ("home", daemon(5, 1, &[message(10, 1, b"/local/domain/1\0")]), called(1, 0)),
        ("text", daemon(8, 1, &[message(2, 1, "é".as_bytes())]), called(1, 0)),
        ("refused", daemon(0, 1, &[message(ERROR, 1, b"ENOENT\0")]), called(0, 0)),
        ("too-big", daemon(1, 1, &[message(ERROR, 1, b"E2BIG\0")]), called(0, 0)),
        ("served", nodes(0, &DISK, below), Report::Nodes(true)),
        ("served-hexadecimal", nodes(0, &but("base", "0x2000200"), ""), Report::Nodes(true)),
        ("generic", nodes(1, &DISK, "virtio/3/51712"), Report::Nodes(true)),
        ("granted", nodes(0, &but("grant_usage", "1"), ""), Report::Nodes(true)),
        ("no-address", nodes(0, &but("base", "33554433"), ""), Report::Nodes(false)),
        ("no-interrupt", nodes(0, &but("irq", "31"), ""), Report::Nodes(false)),
        ("no-path", nodes(0, &but("params", "qcow2:/x"), ""), Report::Nodes(false)),
        ("missing", nodes(0, &DISK[..3], "virtio_disk/3/51712"), Report::Nodes(false)),
    ]
}

#[test]
fn every_seed_of_xenstore_comes_to_what_it_is_for() {
    for (name, bytes, report) in seeds() {
        assert_eq!(run(&bytes), report, "{name}");
    }
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    super::keep("xenstore", &made, |bytes| {
        let _ = run(bytes);
    });
}
