//! Images of 512-byte clusters, whole and damaged.

use xen_virtio_fuzz::qcow2::{Op, Report, encode, run};

const CLUSTER: usize = 512;
/// Clusters of the header, the refcount table, the refcount block and the L1 table.
const TABLES: usize = 4;

/// An image of 64 KiB with nothing in it (docs/interop/qcow2.txt of QEMU).
fn image() -> Vec<u8> {
    let mut bytes = vec![0; TABLES * CLUSTER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &3_u32.to_be_bytes());
    put(20, &9_u32.to_be_bytes()); // cluster_bits
    put(24, &(64_u64 << 10).to_be_bytes()); // size
    put(36, &2_u32.to_be_bytes()); // l1_size
    put(40, &(3 * CLUSTER as u64).to_be_bytes()); // l1_table_offset
    put(48, &(CLUSTER as u64).to_be_bytes()); // refcount_table_offset
    put(56, &1_u32.to_be_bytes()); // refcount_table_clusters
    put(96, &4_u32.to_be_bytes()); // refcount_order
    put(100, &104_u32.to_be_bytes()); // header_length
    put(CLUSTER, &(2 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..TABLES {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    bytes
}

/// The image, with `value` at an offset.
fn with(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = image();
    bytes.resize(bytes.len().max(at + value.len()), 0);
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// Writes, has the image go through everything, and reads.
const LIFE: [Op; 9] = [
    Op::Write(0, 2),
    Op::Write(9, 3),
    Op::Flush,
    Op::Unmap(0, 1),
    Op::Write(1, 1),
    Op::Zero(10, 1),
    Op::Reopen,
    Op::Read(0, 2),
    Op::Read(9, 3),
];

type Seed = (&'static str, Vec<u8>, Report);

fn seeds() -> Vec<Seed> {
    let served = |ok, compared| Report { opened: true, ok, compared, ..Report::default() };
    let refused = Report::default();
    vec![
        ("empty", encode(&LIFE, &[]), refused),
        ("new", encode(&LIFE, &image()), served(8, 5)),
        (
            "discarded",
            encode(
                &[
                    Op::Write(0, 4),
                    Op::Discard(1, 2),
                    Op::Flush,
                    Op::Write(64, 4),
                    Op::Reopen,
                    Op::Read(0, 4),
                ],
                &image(),
            ),
            served(5, 2),
        ),
        ("huge", encode(&LIFE, &with(24, &(1_u64 << 40).to_be_bytes())), refused),
        ("no-refcount-for-the-l1-table", encode(&LIFE, &with(2 * CLUSTER + 6, &[0, 0])), refused),
        (
            "two-tables-in-one-place",
            encode(&LIFE, &with(40, &(2 * CLUSTER as u64).to_be_bytes())),
            refused,
        ),
        ("encrypted", encode(&LIFE, &with(32, &2_u32.to_be_bytes())), refused),
        ("dirty", encode(&LIFE, &with(79, &[1])), refused),
        ("version-2", encode(&LIFE, &with(4, &2_u32.to_be_bytes())), served(8, 5)),
        (
            "an-entry-beyond-the-end",
            encode(&LIFE, &with(3 * CLUSTER, &(1_u64 << 63 | 1 << 40).to_be_bytes())),
            refused,
        ),
    ]
}

#[test]
fn every_seed_of_qcow2_comes_to_what_it_is_for() {
    for (name, bytes, report) in seeds() {
        assert_eq!(run(&bytes), report, "{name}");
    }
    let made: Vec<_> = seeds().into_iter().map(|(name, bytes, _)| (name, bytes)).collect();
    super::keep("qcow2", &made, |bytes| {
        run(bytes);
    });
}
