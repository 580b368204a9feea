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

/// The image, with values of 64 bits at some offsets, and refcounts of the clusters beyond its own.
fn with_entries(entries: &[(usize, u64)], refcounts: &[u16]) -> Vec<u8> {
    let mut bytes = image();
    bytes.resize((TABLES + refcounts.len()) * CLUSTER, 0);
    for (at, value) in entries {
        bytes[*at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
    for (cluster, count) in (TABLES..).zip(refcounts) {
        bytes[2 * CLUSTER + 2 * cluster..][..2].copy_from_slice(&count.to_be_bytes());
    }
    bytes
}

/// The offset of a cluster.
const fn at(cluster: usize) -> u64 {
    (cluster * CLUSTER) as u64
}

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// The image with a snapshot: its table is cluster 4, the L1 table there 5, an L2 table 6, data 7.
fn snapshot(flags: u64, refcounts: [u16; 4]) -> Vec<u8> {
    let entries = [
        (60, 1 << 32),                            // nb_snapshots
        (64, at(4)),                              // snapshots_offset
        (4 * CLUSTER, at(5)),                     // l1_table_offset
        (4 * CLUSTER + 8, 2 << 32 | 1 << 16 | 1), // l1_size, and lengths of the id and name
        (4 * CLUSTER + 36, 16 << 32),             // extra_data_size
        (3 * CLUSTER, at(6)),
        (5 * CLUSTER, at(6)),
        (6 * CLUSTER, at(7) | flags),
    ];
    let mut bytes = with_entries(&entries, &refcounts);
    bytes.truncate(7 * CLUSTER + 8);
    bytes[7 * CLUSTER..].fill(0x33);
    bytes
}

/// The image with refcounts of two to the power of `order` bits.
fn with_refcounts_of(order: u32, refblock: &[u8]) -> Vec<u8> {
    let mut bytes = with(96, &order.to_be_bytes());
    bytes[2 * CLUSTER..3 * CLUSTER].fill(0);
    bytes[2 * CLUSTER..][..refblock.len()].copy_from_slice(refblock);
    bytes
}

/// The image with one L2 table, of one entry, and something in the cluster behind it.
fn with_l2_entry(entry: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = with_entries(&[(3 * CLUSTER, COPIED | at(4)), (4 * CLUSTER, entry)], &[1, 1]);
    bytes[5 * CLUSTER..][..content.len()].copy_from_slice(content);
    bytes
}

/// A cluster of 0x5a, deflated.
const DEFLATED: [u8; 8] = [0x8b, 0x8a, 0x1a, 0x05, 0x23, 0x19, 0x00, 0x00];

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
        (
            "an-l2-table-in-the-place-of-the-refcount-table",
            encode(
                &[Op::Write(64, 4), Op::Flush, Op::Reopen, Op::Read(64, 4)],
                &with(3 * CLUSTER + 8, &at(1).to_be_bytes()),
            ),
            refused,
        ),
        (
            "an-entry-of-data-in-the-place-of-the-refcount-block",
            encode(&LIFE, &with_l2_entry(at(2), &[])),
            refused,
        ),
        ("an-entry-of-data-beyond-the-end", encode(&LIFE, &data_beyond_the_end()), refused),
        (
            "an-entry-that-is-not-aligned",
            encode(&LIFE, &with_l2_entry(COPIED | at(5) | 1 << 56, &[])),
            refused,
        ),
        ("snapshot", encode(&LIFE, &snapshot(0, [1, 1, 2, 2])), served(8, 5)),
        (
            "a-snapshot-whose-data-has-one-refcount",
            encode(&LIFE, &snapshot(0, [1, 1, 2, 1])),
            refused,
        ),
        (
            "a-snapshot-whose-data-is-written-where-it-lies",
            encode(&LIFE, &snapshot(COPIED, [1, 1, 2, 2])),
            refused,
        ),
        ("compressed", encode(&LIFE, &with_l2_entry(COMPRESSED | at(5), &DEFLATED)), served(8, 5)),
        (
            "compressed-data-in-the-place-of-the-header",
            encode(&LIFE, &with_l2_entry(COMPRESSED | 8, &[])),
            refused,
        ),
        (
            "zeroes-that-keep-their-storage",
            encode(&LIFE, &with_l2_entry(COPIED | at(5) | ZERO, &[0x77; CLUSTER])),
            served(8, 5),
        ),
        (
            "zeroes-whose-storage-is-not-written-where-it-lies",
            encode(&LIFE, &with_l2_entry(at(5) | ZERO, &[0x77; CLUSTER])),
            served(8, 5),
        ),
        ("refcounts-of-one-bit", encode(&LIFE, &with_refcounts_of(0, &[0x0f])), served(8, 5)),
        ("refcounts-of-four-bits", encode(&LIFE, &with_refcounts_of(2, &[0x11; 2])), served(8, 5)),
        (
            "refcounts-of-64-bits",
            encode(&LIFE, &with_refcounts_of(6, &1_u64.to_be_bytes().repeat(4))),
            served(8, 5),
        ),
        ("feature-bits-that-are-cleared", encode(&LIFE, &with(95, &[1])), served(8, 5)),
    ]
}

/// An L2 table whose entry is of data that counts as in use and isn't in the file.
fn data_beyond_the_end() -> Vec<u8> {
    let mut bytes =
        with_entries(&[(3 * CLUSTER, COPIED | at(4)), (4 * CLUSTER, COPIED | at(40))], &[1]);
    bytes[2 * CLUSTER + 2 * 40 + 1] = 1;
    bytes
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
