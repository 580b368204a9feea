//! Guest memory with requests in it, well-formed and otherwise.

use xen_virtio_fuzz::memory::Patch;
use xen_virtio_fuzz::request::{AVAIL, Case, DESC, Report, run};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

const EVENT_IDX: u8 = 2;
const F_INDIRECT: u8 = 4;
const FLUSH: u8 = 8;
const REORDER: u8 = 16;
const FAULT: u8 = 32;
const ALL: u8 = EVENT_IDX | F_INDIRECT | FLUSH;

/// Where requests are.
const HEADER: u16 = 0x250;
/// Where their data goes, beyond what the seed holds.
const DATA: u16 = 0x800;

/// A guest's memory, as long as what was put there.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Memory {
    fn put(mut self, at: u16, bytes: &[u8]) -> Self {
        let at = usize::from(at);
        self.0.resize(self.0.len().max(at + bytes.len()), 0);
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn desc(self, table: u16, index: u16, (addr, len, flags, next): Desc) -> Self {
        let at = table + 16 * index;
        self.put(at, &u64::from(addr).to_le_bytes())
            .put(at + 8, &u32::from(len).to_le_bytes())
            .put(at + 12, &flags.to_le_bytes())
            .put(at + 14, &next.to_le_bytes())
    }

    fn chain(mut self, first: u16, descs: &[Desc]) -> Self {
        for (index, desc) in (first..).zip(descs) {
            self = self.desc(DESC as u16, index, *desc);
        }
        self
    }

    fn header(self, at: u16, kind: u32, sector: u64) -> Self {
        self.put(at, &kind.to_le_bytes()).put(at + 8, &sector.to_le_bytes())
    }

    /// Makes `heads` available, from ring index `start` on, in a ring of `size`.
    fn avail(mut self, start: u16, size: u16, heads: &[u16]) -> Self {
        let mut index = start;
        for head in heads {
            self = self.put(AVAIL as u16 + 4 + 2 * (index % size), &head.to_le_bytes());
            index = index.wrapping_add(1);
        }
        self.put(AVAIL as u16 + 2, &index.to_le_bytes())
    }

    fn one(self) -> Self {
        self.avail(0, 4, &[0])
    }
}

/// Address, length, flags, next.
type Desc = (u16, u16, u16, u16);

/// Header, `len` bytes of data with `flags`, status.
fn plain(len: u16, flags: u16) -> [Desc; 3] {
    [(HEADER, 16, NEXT, 1), (DATA, len, NEXT | flags, 2), (HEADER + 16, 1, WRITE, 0)]
}

fn simple(kind: u32, sector: u64, len: u16, flags: u16) -> Vec<u8> {
    Memory::default().chain(0, &plain(len, flags)).header(HEADER, kind, sector).one().0
}

fn indirect(flags: u16) -> Vec<u8> {
    let table = 0x300;
    Memory::default()
        .desc(DESC as u16, 0, (table, 48, INDIRECT | flags, 0))
        .desc(table, 0, (HEADER, 16, NEXT, 1))
        .desc(table, 1, (DATA, 1024, NEXT | WRITE, 2))
        .desc(table, 2, (HEADER + 16, 1, WRITE, 0))
        .header(HEADER, 0, 3)
        .one()
        .0
}

/// Requests of every kind at once, three descriptors each.
fn several(start: u16, size: u16) -> Vec<u8> {
    let mut memory = Memory::default();
    let kinds = [(1, 0, 512, 0), (0, 4, 512, WRITE), (4, 0, 0, WRITE), (8, 0, 20, WRITE)];
    for (nth, (kind, sector, len, flags)) in (0_u16..).zip(kinds) {
        let (first, header) = (3 * nth, HEADER + 32 * nth);
        let data = DATA + 0x400 * nth;
        memory = memory
            .chain(
                first,
                &[
                    (header, 16, NEXT, first + 1),
                    (data, len, NEXT | flags, first + 2),
                    (header + 16, 1, WRITE, 0),
                ],
            )
            .header(header, kind, sector);
    }
    memory.avail(start, size, &[0, 3, 6, 9]).0
}

/// A request whose every stream is cut into pieces.
fn in_pieces() -> Vec<u8> {
    Memory::default()
        .chain(
            0,
            &[
                (HEADER, 3, NEXT, 1),
                (HEADER + 3, 0, NEXT, 2),
                (HEADER + 3, 13, NEXT, 3),
                (DATA, 100, NEXT | WRITE, 4),
                (0xfff, 2, NEXT | WRITE, 5),
                (0x1100, 411, WRITE, 0),
            ],
        )
        .header(HEADER, 0, 7)
        .avail(0, 16, &[0])
        .0
}

fn looped() -> Vec<u8> {
    Memory::default().chain(0, &[(HEADER, 16, NEXT, 1), (HEADER, 16, NEXT, 0)]).one().0
}

const LOOP: Case = Case { flags: ALL, log: 0, start: 0, seed: 0, fault: 0 };

fn ok(count: u64) -> Report {
    Report { ok: count, predicted: true, ..Report::default() }
}

fn error() -> Report {
    Report { errors: 1, predicted: true, ..Report::default() }
}

fn broken() -> Report {
    Report { broken: true, predicted: true, ..Report::default() }
}

/// A seed and what becomes of it.
type Seed = (&'static str, Vec<u8>, Report);

fn seeds() -> Vec<Seed> {
    let case = Case { flags: ALL, ..Case::default() };
    let wide = Case { log: 2, ..case };
    let bare = Case::default();
    let seed =
        |name, case: Case, memory: Vec<u8>, report| (name, case.encode(&memory, &[]), report);
    let unpredicted = |report: Report| Report { predicted: false, ..report };
    vec![
        seed("read", case, simple(0, 3, 512, WRITE), ok(1)),
        seed("read-without-features", bare, simple(0, 3, 512, WRITE), ok(1)),
        seed("read-across-mappings", wide, in_pieces(), ok(1)),
        seed("read-beyond-the-end", case, simple(0, 8, 512, WRITE), error()),
        seed("read-part-of-a-sector", case, simple(0, 0, 511, WRITE), error()),
        seed("write", case, simple(1, 5, 1024, 0), ok(1)),
        seed("write-through", bare, simple(1, 5, 1024, 0), ok(1)),
        seed("write-read-only", Case { flags: ALL | 1, ..case }, simple(1, 5, 512, 0), error()),
        seed("flush", case, simple(4, 0, 0, WRITE), ok(1)),
        seed("identify", case, simple(8, 0, 20, WRITE), ok(1)),
        seed("identify-in-little-room", case, simple(8, 0, 5, WRITE), ok(1)),
        seed("lifetime", case, simple(10, 0, 6, WRITE), ok(1)),
        seed("lifetime-in-little-room", case, simple(10, 0, 3, WRITE), ok(1)),
        seed("unknown-type", case, simple(99, 0, 512, WRITE), error()),
        seed("discard", case, simple(11, 0, 16, 0), unpredicted(error())),
        seed("indirect", case, indirect(0), ok(1)),
        seed("indirect-and-writable", case, indirect(WRITE), ok(1)),
        seed("indirect-with-next", case, indirect(NEXT), broken()),
        seed("indirect-not-negotiated", bare, indirect(0), broken()),
        seed("loop", LOOP, looped(), broken()),
        seed("several", wide, several(0, 16), ok(4)),
        seed("several-wrapping", Case { start: 0xfffe, ..wide }, several(0xfffe, 16), ok(4)),
        seed(
            "several-in-any-order",
            Case { flags: ALL | REORDER, seed: 7, ..wide },
            several(0, 16),
            ok(4),
        ),
        seed(
            "several-and-an-error",
            Case { flags: ALL | FAULT, ..wide },
            several(0, 16),
            Report { ok: 3, errors: 1, ..Report::default() },
        ),
        seed(
            "several-and-a-short-read",
            Case { flags: ALL | FAULT, fault: 100, ..wide },
            several(0, 16),
            unpredicted(ok(4)),
        ),
        seed("index-jumps", case, Memory::default().avail(5, 4, &[]).0, broken()),
        seed("head-beyond-the-table", case, Memory::default().avail(0, 4, &[4]).0, broken()),
        (
            "changing-under-the-reader",
            wide.encode(
                &several(0, 16),
                &[
                    Patch { addr: 0x202, value: 4 },
                    Patch { addr: 0x1c, value: 3 },
                    Patch { addr: HEADER, value: 1 },
                    Patch { addr: 0x18, value: 0x40 },
                ],
            ),
            // The read that becomes a write has no data to write.
            Report { ok: 3, errors: 1, ..Report::default() },
        ),
    ]
}

#[test]
fn every_seed_of_a_request_comes_to_what_it_is_for() {
    for (name, bytes, report) in seeds() {
        assert_eq!(run(&bytes), report, "{name}");
    }
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    super::keep("request", &made, |bytes| {
        let _ = run(bytes);
    });
}
