//! Drivers of a PCI function, from the first access to the last.

use xen_virtio_fuzz::pci::{Case, Op, Report, run};

const IN: u8 = 0;
const OUT: u8 = 1;
/// `FLUSH`, `INDIRECT_DESC` and `EVENT_IDX`.
const ALL: u8 = 7;
/// A queue of 8.
const EIGHT: u8 = 3;

fn set(field: u16, value: u8) -> Op {
    Op::Set(Op::place(field), value)
}

fn config(offset: u16, data: &[u8]) -> Op {
    Op::WriteConfig(offset, data.to_vec())
}

fn up() -> Op {
    // Without EVENT_IDX, so that each request notifies.
    Op::Initialise(ALL & !4, EIGHT)
}

/// Every step of Linux' PCI core, virtio_pci_modern and virtio_blk, one access each.
fn by_hand() -> Vec<Op> {
    let mut ops = vec![
        Op::ReadConfig(0x00, 4),
        Op::ReadConfig(0x08, 4),
        config(0x04, &[0, 0]),
        config(0x10, &[0xff; 4]),
        Op::ReadConfig(0x10, 4),
        config(0x10, &[0, 0, 0, 0x23]),
        config(0x04, &[6, 0]),
        Op::ReadConfig(0x34, 1),
    ];
    ops.extend([0x40, 0x4c, 0x5c, 0x70, 0x80, 0x94].map(|at| Op::ReadConfig(at, 4)));
    ops.extend([
        set(0x14, 0),
        Op::ReadRaw(0x14, 1),
        set(0x14, 1),
        set(0x14, 3),
        set(0x00, 0),
        Op::ReadRaw(0x04, 4),
        set(0x00, 1),
        Op::ReadRaw(0x04, 4),
        set(0x08, 0),
        Op::Write(Op::place(0x0c), 1 << 9 | 1 << 28),
        set(0x08, 1),
        set(0x0c, 1),
        set(0x14, 11),
        Op::ReadRaw(0x14, 1),
        Op::ReadRaw(0x100, 4),
        Op::ReadRaw(0x15, 1),
        // MSI-X, masked until the vectors are made.
        config(0x42, &[1, 0xc0]),
        Op::Entry(0, 1, 40),
        Op::Entry(1, 1, 41),
        config(0x42, &[1, 0x80]),
        Op::Entry(0, 0, 40),
        set(0x10, 0),
        Op::ReadRaw(0x10, 2),
        set(0x16, 0),
        Op::ReadRaw(0x18, 2),
        set(0x18, 8),
        Op::Write(Op::place(0x20), 0),
        Op::Write(Op::place(0x28), 0x200),
        Op::Write(Op::place(0x30), 0x400),
        set(0x1a, 1),
        Op::ReadRaw(0x1a, 2),
        Op::Entry(1, 0, 41),
        set(0x1c, 1),
        set(0x14, 15),
    ]);
    ops
}

/// A seed and what becomes of it.
type Seed = (&'static str, Vec<u8>, Report);

fn seeds() -> Vec<Seed> {
    let case = Case { log: 1, ..Case::default() };
    let late = Case { flags: 8, ..case };
    let none = Report::default();
    let once = Report { resets: 1, ..none };
    let seed = |name, case: Case, ops: &[Op], report| (name, case.encode(ops), report);
    let with = |ops: &[Op], more: &[Op]| [ops, more].concat();
    vec![
        seed("nothing", case, &[], none),
        seed(
            "by-hand",
            case,
            &with(&by_hand(), &[Op::Request(IN, 2, 1), Op::Request(OUT, 3, 2)]),
            Report { ok: 2, messages: 2, ..once },
        ),
        seed(
            "masked-and-unmasked",
            case,
            &[
                up(),
                Op::Entry(1, 1, 101),
                Op::Request(IN, 0, 1),
                Op::ReadRaw(0x3000, 8),
                Op::Entry(1, 0, 102),
                Op::Function(3 | 4),
                Op::Request(IN, 1, 1),
                Op::Function(1 | 4),
                Op::Function(1),
                Op::Request(IN, 1, 1),
                Op::Function(1 | 4),
            ],
            Report { ok: 3, messages: 3, ..once },
        ),
        seed(
            "without-messages",
            case,
            &[
                up(),
                Op::Function(4),
                Op::Request(IN, 0, 1),
                Op::ReadRaw(0x40, 1),
                Op::ConfigChanged,
            ],
            Report { ok: 1, ..once },
        ),
        seed(
            "messages-to-nowhere",
            case,
            &[up(), Op::Entry(1, 2, 101), Op::Request(IN, 0, 1), Op::ConfigChanged],
            Report { ok: 1, messages: 1, ..once },
        ),
        seed(
            "through-the-window",
            case,
            &[
                up(),
                Op::Descriptor(0, 0x800, 16, 1, 1),
                Op::Window(0x100, 4, 0),
                Op::Window(0x1000, 2, 0),
                Op::Window(0x40, 1, 0),
                Op::Window(0x2000, 4, 0),
                Op::Window(0x14, 1, 0),
            ],
            once,
        ),
        seed(
            "late-reset",
            late,
            &[
                up(),
                Op::Request(OUT, 0, 1),
                set(0x14, 0),
                Op::ReadRaw(0x14, 1),
                set(0x10, 1),
                set(0x14, 0),
                Op::Turn,
                Op::Finish,
                Op::Stale,
                up(),
                Op::Request(IN, 0, 1),
            ],
            Report { ok: 2, messages: 2, resets: 2, ..none },
        ),
        seed(
            "restored",
            case,
            &[
                up(),
                Op::Request(IN, 0, 1),
                Op::Entry(0, 1, 100),
                Op::ConfigChanged,
                Op::Restore,
                Op::Request(IN, 1, 1),
                Op::Entry(0, 0, 100),
            ],
            // And one for the queue, as it was resumed.
            Report { ok: 2, messages: 4, restores: 1, ..once },
        ),
        seed(
            "broken-ring",
            case,
            &[up(), Op::Descriptor(0, 0x800, 16, 1, 9), Op::Offer(0), Op::Turn],
            // Of the configuration, as the device needs a reset.
            Report { messages: 1, given_up: 1, ..once },
        ),
    ]
}

#[test]
fn every_seed_of_functions_comes_to_what_it_is_for() {
    for (name, bytes, report) in seeds() {
        assert_eq!(run(&bytes), report, "{name}");
    }
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    super::keep("pci", &made, |bytes| {
        let _ = run(bytes);
    });
}
