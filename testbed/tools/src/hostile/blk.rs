//! Requests of the block device (virtio 1.2 §5.2.6).

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::{DATA_AT, Rig};
use anyhow::Result;

/// Where actions write: far from the ordinary driver's sectors.
const SCRATCH: u64 = 2048;
/// Types that no device has, or that this one doesn't offer.
const UNKNOWN: [u32; 18] =
    [2, 3, 5, 6, 7, 9, 12, 15, 16, 17, 18, 20, 22, 24, 26, 0x100, 0x8000_0000, u32::MAX];

fn capacity(rig: &Rig) -> u64 {
    rig.window.read64(CONFIG)
}

fn is(what: &str, status: u8, wanted: &[u8]) -> Result<()> {
    ensure(wanted.contains(&status), || format!("{what} came to {status}, not {wanted:?}"))
}

pub(crate) fn actions(table: &mut Table) {
    for kind in UNKNOWN {
        table.add("5.2.6.2", format!("type-{kind:x}"), move |rig| {
            rig.up(&[])?;
            let data = rig.data(512, true);
            let status = rig.request(kind, 0, &[data])?;
            same("the status", status, UNSUPP)
        });
    }
    places(table);
    lengths(table);
    identity(table);
    ranges(table);
}

fn places(table: &mut Table) {
    type Place = fn(u64) -> u64;
    let places: [(&str, Place); 6] = [
        ("at-the-end", |capacity| capacity),
        ("over-the-end", |capacity| capacity - 1),
        ("far-beyond", |capacity| capacity + (1 << 40)),
        ("at-2-to-the-55", |_| 1 << 55),
        ("at-the-last-sector-of-all", |_| u64::MAX),
        ("whose-byte-wraps", |_| u64::MAX / 512 + 1),
    ];
    for (name, place) in places {
        for (kind, what) in [(IN, "read"), (OUT, "write")] {
            table.add("5.2.6.1", format!("{what}-{name}"), move |rig| {
                rig.up(&[])?;
                let sector = place(capacity(rig));
                let data = rig.data(1024, kind == IN);
                same("the status", rig.request(kind, sector, &[data])?, IOERR)
            });
        }
    }
    table.add("5.2.6.1", "read-the-last-sector", |rig| {
        rig.up(&[])?;
        let (sector, data) = (capacity(rig) - 1, rig.data(512, true));
        same("the status", rig.request(IN, sector, &[data])?, OK)
    });
}

fn lengths(table: &mut Table) {
    for len in [1, 511, 513] {
        for (kind, what) in [(IN, "read"), (OUT, "write")] {
            table.add("5.2.6.1", format!("{what}-of-{len}-bytes"), move |rig| {
                rig.up(&[])?;
                let data = rig.data(len, kind == IN);
                same("the status", rig.request(kind, SCRATCH, &[data])?, IOERR)
            });
        }
    }
    for (kind, what) in [(IN, "read"), (OUT, "write")] {
        table.add("5.2.6", format!("{what}-of-nothing"), move |rig| {
            rig.up(&[])?;
            let status = rig.request(kind, SCRATCH, &[])?;
            is("it", status, &[OK, IOERR, UNSUPP])
        });
        table.add("5.2.6", format!("{what}-with-data-the-other-way"), move |rig| {
            rig.up(&[])?;
            let data = rig.data(512, kind == OUT);
            let status = rig.request(kind, SCRATCH, &[data])?;
            is("it", status, &[OK, IOERR, UNSUPP])
        });
    }
    table.add("5.2.6.1", "flush-with-data-and-sector", |rig| {
        rig.up(&[9])?;
        let data = rig.data(512, true);
        let status = rig.request(FLUSH, u64::MAX, &[data])?;
        is("it", status, &[OK, IOERR, UNSUPP])
    });
    table.add("5.2.6.2", "what-is-written-is-read", |rig| {
        rig.up(&[])?;
        rig.memory.fill(DATA_AT, &[0xa5; 512]);
        let data = rig.data(512, false);
        same("the status of the write", rig.request(OUT, SCRATCH, &[data])?, OK)?;
        rig.memory.fill(DATA_AT, &[0; 512]);
        let data = rig.data(512, true);
        same("the status of the read", rig.request(IN, SCRATCH, &[data])?, OK)?;
        ensure(rig.memory.bytes(DATA_AT, 512) == [0xa5; 512], || "other data".to_owned())
    });
}

fn identity(table: &mut Table) {
    for len in [0, 1, 19, 20, 21, 4096] {
        table.add("5.2.6.1", format!("identity-into-{len}-bytes"), move |rig| {
            rig.up(&[])?;
            rig.memory.fill(DATA_AT, &[0xcc; 4096]);
            let data = rig.data(len, true);
            let parts = if len == 0 { &[][..] } else { &[data][..] };
            is("it", rig.request(GET_ID, 0, parts)?, &[OK, IOERR, UNSUPP])?;
            let beyond = rig.memory.bytes(DATA_AT + 20, 4096 - 20);
            ensure(beyond.iter().all(|byte| *byte == 0xcc), || "more than 20 bytes".to_owned())
        });
    }
}

/// Ranges of a discard or of zeroes: sector, sectors, flags.
fn ranges(table: &mut Table) {
    type Range = (u64, u32, u32);
    let kinds =
        [(DISCARD_REQUEST, DISCARD, "discard"), (WRITE_ZEROES_REQUEST, WRITE_ZEROES, "zeroes")];
    let cases: [(&str, Range, &[u8]); 7] = [
        ("of-no-sectors", (SCRATCH, 0, 0), &[OK, IOERR]),
        ("beyond-the-end", (1 << 40, 8, 0), &[IOERR]),
        ("that-wraps", (u64::MAX, 8, 0), &[IOERR]),
        ("of-4-gi-sectors", (SCRATCH, u32::MAX, 0), &[IOERR]),
        ("with-reserved-flags", (SCRATCH, 8, 0xffff_fffe), &[UNSUPP]),
        ("with-the-last-flag", (SCRATCH, 8, 1 << 31), &[UNSUPP]),
        ("that-is-right", (SCRATCH, 8, 0), &[OK]),
    ];
    for (kind, feature, what) in kinds {
        for (name, (sector, sectors, flags), wanted) in cases {
            table.add("5.2.6.2", format!("{what}-{name}"), move |rig| {
                rig.reset()?;
                ensure(rig.has(feature), || format!("feature {feature} isn't offered"))?;
                rig.up(&[feature])?;
                rig.memory.write64(DATA_AT, sector);
                rig.memory.write32(DATA_AT + 8, sectors);
                rig.memory.write32(DATA_AT + 12, flags);
                let data = rig.data(16, false);
                is(what, rig.request(kind, 0, &[data])?, wanted)
            });
        }
        for len in [0, 1, 15, 17, 4096] {
            table.add("5.2.6.2", format!("{what}-of-{len}-bytes-of-ranges"), move |rig| {
                rig.up(&[feature])?;
                rig.memory.fill(DATA_AT, &[0; 4096]);
                let data = rig.data(len, false);
                let parts = if len == 0 { &[][..] } else { &[data][..] };
                is(what, rig.request(kind, 0, parts)?, &[OK, IOERR, UNSUPP])
            });
        }
    }
    table.add("5.2.6.2", "discard-with-unmap", |rig| {
        rig.up(&[DISCARD])?;
        rig.memory.write64(DATA_AT, SCRATCH);
        rig.memory.write32(DATA_AT + 8, 8);
        rig.memory.write32(DATA_AT + 12, 1);
        let data = rig.data(16, false);
        is("it", rig.request(DISCARD_REQUEST, 0, &[data])?, &[UNSUPP])
    });
    for (kind, feature, name) in [(14, SECURE_ERASE, "secure-erase"), (10, LIFETIME, "lifetime")] {
        table.add("5.2.6.2", format!("{name}-not-offered"), move |rig| {
            rig.reset()?;
            let offered = rig.has(feature);
            rig.up(&[])?;
            rig.memory.fill(DATA_AT, &[0; 64]);
            let data = rig.data(16, kind == 10);
            let status = rig.request(kind, 0, &[data])?;
            ensure(offered || status == UNSUPP, || format!("it came to {status}"))
        });
    }
}
