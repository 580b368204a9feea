//! Drivers, from the first access to the last.

use virtio_mmio_dev::Register;
use xen_virtio_fuzz::mmio::{Case, Op, Report, run};

fn set(register: Register, value: u8) -> Op {
    Op::Set(Op::place(register), value)
}

fn write(register: Register, value: u32) -> Op {
    Op::Write(Op::place(register), value)
}

fn read(register: Register) -> Op {
    Op::ReadRaw(register.offset() as u16, 4)
}

/// Every step of Linux' virtio_mmio and virtio_blk, one access each.
fn by_hand() -> Vec<Op> {
    use Register as R;
    vec![
        read(R::MagicValue),
        read(R::Version),
        read(R::DeviceId),
        read(R::VendorId),
        set(R::Status, 0),
        read(R::Status),
        set(R::Status, 1),
        set(R::Status, 3),
        set(R::DeviceFeaturesSel, 1),
        read(R::DeviceFeatures),
        set(R::DeviceFeaturesSel, 0),
        read(R::DeviceFeatures),
        set(R::DriverFeaturesSel, 1),
        set(R::DriverFeatures, 1),
        set(R::DriverFeaturesSel, 0),
        write(R::DriverFeatures, 1 << 9 | 1 << 28 | 1 << 29),
        set(R::Status, 11),
        read(R::Status),
        Op::ReadRaw(0x100, 8),
        read(R::ConfigGeneration),
        Op::ReadRaw(0x114, 4),
        set(R::QueueSel, 0),
        read(R::QueueReady),
        read(R::QueueSizeMax),
        set(R::QueueSize, 8),
        Op::Rings(0, 2, 4),
        set(R::QueueReady, 1),
        set(R::Status, 15),
    ]
}

const IN: u8 = 0;
const OUT: u8 = 1;
const FLUSH: u8 = 4;
const GET_ID: u8 = 8;
/// `FLUSH`, `INDIRECT_DESC` and `EVENT_IDX`.
const ALL: u8 = 7;
/// A queue of 8.
const EIGHT: u8 = 3;

fn up() -> Op {
    Op::Initialise(ALL, EIGHT)
}

fn acknowledge() -> Op {
    set(Register::InterruptAck, 1)
}

/// A seed and what becomes of it.
type Seed = (&'static str, Vec<u8>, Report);

fn seeds() -> Vec<Seed> {
    let case = Case { log: 1, ..Case::default() };
    let late = Case { flags: 8, ..case };
    let once = Report { resets: 1, ..Report::default() };
    // `Op::Initialise` and the end of every input are resets.
    let twice = Report { resets: 2, ..Report::default() };
    let seed = |name, case: Case, ops: &[Op], report| (name, case.encode(ops), report);
    vec![
        seed("nothing", case, &[], once),
        seed(
            "by-hand",
            case,
            &[
                by_hand(),
                vec![
                    Op::Request(IN, 2, 1),
                    read(Register::InterruptStatus),
                    acknowledge(),
                    Op::Request(OUT, 3, 2),
                    acknowledge(),
                ],
            ]
            .concat(),
            Report { ok: 2, ..twice },
        ),
        seed(
            "every-kind",
            case,
            &[
                up(),
                Op::Request(IN, 0, 3),
                acknowledge(),
                Op::Request(OUT, 1, 1),
                Op::Request(FLUSH, 0, 0),
                acknowledge(),
                Op::Request(GET_ID, 0, 1),
                Op::Request(99, 0, 1),
                Op::Request(IN, 16, 1),
            ],
            Report { ok: 4, errors: 2, ..twice },
        ),
        seed(
            "without-features",
            case,
            &[Op::Initialise(0, EIGHT), Op::Request(IN, 0, 1), Op::Request(OUT, 0, 1)],
            Report { ok: 2, ..twice },
        ),
        seed(
            "read-only",
            Case { flags: 1, ..case },
            &[up(), Op::Request(OUT, 0, 1), Op::Request(IN, 0, 1)],
            Report { ok: 1, errors: 1, ..twice },
        ),
        seed(
            "access-platform",
            Case { flags: 2, ..case },
            &[up(), Op::Request(IN, 0, 1)],
            Report { ok: 1, ..twice },
        ),
        seed(
            "in-any-order",
            Case { flags: 4, seed: 5, ..case },
            &[up(), Op::Request(IN, 0, 4), Op::Request(OUT, 0, 2), Op::Turn, Op::Turn],
            Report { ok: 2, ..twice },
        ),
        seed(
            "faults",
            case,
            &[
                up(),
                Op::Fault(0),
                Op::Request(IN, 0, 1),
                Op::Fault(9),
                Op::Request(OUT, 0, 1),
                Op::Fault(2),
                Op::Request(IN, 0, 1),
            ],
            Report { ok: 1, errors: 2, ..twice },
        ),
        seed(
            "queue-stops-and-starts",
            case,
            &[
                up(),
                Op::Request(IN, 0, 1),
                set(Register::QueueReady, 0),
                read(Register::QueueReady),
                Op::Store(0x202, vec![0; 2]),
                set(Register::QueueReady, 1),
                Op::Request(IN, 1, 1),
            ],
            Report { ok: 2, stops: 1, ..twice },
        ),
        seed(
            "answered-late",
            late,
            &[
                up(),
                Op::Request(IN, 0, 1),
                set(Register::QueueReady, 0),
                Op::Request(IN, 0, 1),
                read(Register::QueueReady),
                Op::Finish,
                set(Register::Status, 0),
                read(Register::Status),
                set(Register::Status, 1),
                Op::Finish,
                Op::Stale,
            ],
            Report { ok: 1, stops: 1, resets: 3, ..twice },
        ),
        seed(
            "stale-interrupt",
            case,
            &[up(), set(Register::Status, 0), up(), Op::Stale, Op::Request(IN, 0, 1), Op::Stale],
            Report { ok: 1, resets: 4, ..twice },
        ),
        seed(
            "restored",
            case,
            &[
                up(),
                Op::Request(IN, 0, 1),
                Op::Restore,
                Op::Request(OUT, 0, 1),
                Op::Restore,
                acknowledge(),
                Op::Request(IN, 0, 1),
            ],
            Report { ok: 3, restores: 2, ..twice },
        ),
        seed(
            "broken-ring",
            case,
            &[
                up(),
                Op::Descriptor(0, 0x1000, 16, 1, 1),
                Op::Descriptor(1, 0x1000, 16, 1, 0),
                Op::Offer(0),
                set(Register::QueueNotify, 0),
                read(Register::Status),
                read(Register::InterruptStatus),
                up(),
                Op::Request(IN, 0, 1),
            ],
            Report { ok: 1, given_up: 1, resets: 3, ..twice },
        ),
        seed(
            "rings-elsewhere",
            case,
            &[
                up(),
                set(Register::QueueReady, 0),
                Op::Rings(0x18, 0x1a, 0x1c),
                set(Register::QueueReady, 1),
                Op::Request(IN, 0, 1),
                set(Register::QueueReady, 0),
                write(Register::QueueDescHigh, 1 << 31),
                set(Register::QueueReady, 1),
            ],
            Report { ok: 1, stops: 2, given_up: 1, ..twice },
        ),
        seed(
            "indirect-by-hand",
            case,
            &[
                up(),
                Op::Store(0x1000, vec![0; 32]),
                Op::Store(
                    0x1100,
                    [&[0, 0x10, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0][..]].concat(),
                ),
                Op::Store(
                    0x1110,
                    [&[0, 0x18, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 2, 0, 0, 0][..]].concat(),
                ),
                Op::Descriptor(5, 0x1100, 32, 4, 0),
                Op::Offer(5),
                set(Register::QueueNotify, 0),
            ],
            Report { ok: 1, ..twice },
        ),
        seed(
            "steps-skipped",
            case,
            &[
                set(Register::Status, 4),
                set(Register::Status, 15),
                set(Register::Status, 1),
                set(Register::Status, 11),
                set(Register::Status, 64),
                read(Register::Status),
                up(),
                set(Register::Status, 3),
                Op::Request(IN, 0, 1),
            ],
            Report { ok: 1, ..twice },
        ),
        seed(
            "odd-accesses",
            case,
            &[
                Op::WriteRaw(0x70, vec![1]),
                Op::WriteRaw(0x71, vec![1, 0, 0, 0]),
                Op::WriteRaw(0x70, vec![1, 0, 0, 0, 3, 0, 0, 0]),
                Op::ReadRaw(0x70, 2),
                Op::ReadRaw(0x72, 4),
                Op::ReadRaw(0xfe, 8),
                Op::ReadRaw(0x1ff, 4),
                Op::ReadRaw(0x121, 4),
                Op::ReadRaw(0xffff, 8),
                up(),
                Op::WriteRaw(0x100, vec![1; 8]),
                Op::WriteRaw(0x120, vec![1]),
                Op::WriteRaw(0x122, vec![1; 4]),
                Op::ConfigChanged,
                read(Register::InterruptStatus),
                set(Register::InterruptAck, 3),
                set(Register::QueueSel, 1),
                read(Register::QueueSizeMax),
                set(Register::QueueReady, 1),
                write(Register::QueueNotify, u32::MAX),
                set(Register::ShmSel, 7),
                read(Register::ShmLenLow),
                set(Register::Status, 0x8f),
                set(Register::Status, 15),
            ],
            twice,
        ),
    ]
}

#[test]
fn every_seed_of_registers_comes_to_what_it_is_for() {
    for (name, bytes, report) in seeds() {
        assert_eq!(run(&bytes), report, "{name}");
    }
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    super::keep("mmio", &made, |bytes| {
        let _ = run(bytes);
    });
}
