//! Indirect descriptors (virtio 1.2 §2.7.5.3).

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::{INDIRECT_AT, Outcome, Part, Rig, TABLE_AT};
use anyhow::Result;

/// A read in the indirect table: three descriptors.
fn fill(rig: &mut Rig) -> Result<Part> {
    rig.up(&[INDIRECT])?;
    let (header, status) = rig.header(0, IN, 0);
    rig.describe(INDIRECT_AT, 0, header, NEXT, 1);
    rig.describe(INDIRECT_AT, 1, rig.data(512, true), NEXT, 2);
    rig.describe(INDIRECT_AT, 2, status, 0, 0);
    Ok(Part { addr: rig.memory.address(INDIRECT_AT), len: 48, write: false })
}

fn is_read(rig: &mut Rig, head: u16) -> Result<()> {
    let outcome = rig.send(head);
    let wanted = Outcome::Answered { head: head.into(), len: 513 };
    ensure(outcome == wanted, || format!("{outcome:?}"))?;
    same("the status", rig.answer(0).unwrap_or(0xee), OK)
}

/// What a table of a chain may not be: a name, and how it differs from a good one.
type Change = fn(&mut Part);
const TABLES: [(&str, Change); 9] = [
    ("of-0-bytes", |table| table.len = 0),
    ("of-15-bytes", |table| table.len = 15),
    ("of-17-bytes", |table| table.len = 17),
    ("of-4-gib", |table| table.len = !15),
    ("of-65537-descriptors", |table| table.len = 65537 * 16),
    ("at-0", |table| table.addr = 0),
    ("beyond-memory", |table| table.addr = 0x10_0000_0000),
    ("in-a-window", |table| table.addr = 0x0200_0000),
    ("over-the-end-of-all-addresses", |table| table.addr = u64::MAX - 15),
];

pub(crate) fn actions(table: &mut Table) {
    table.add("2.7.5.3.2", "indirect-table-is-a-request", |rig| {
        let part = fill(rig)?;
        rig.describe(TABLE_AT, 0, part, TABLE, 0);
        is_read(rig, 0)
    });
    table.add("2.7.5.3.2", "write-flag-on-a-table-is-ignored", |rig| {
        let part = fill(rig)?;
        rig.describe(TABLE_AT, 0, Part { write: true, ..part }, TABLE, 0);
        is_read(rig, 0)
    });
    table.add("2.7.5.3.2", "table-after-direct-descriptors", |rig| {
        let part = fill(rig)?;
        let (header, _) = rig.header(0, IN, 0);
        rig.describe(INDIRECT_AT, 0, rig.data(512, true), NEXT, 2);
        rig.describe(TABLE_AT, 0, header, NEXT, 1);
        rig.describe(TABLE_AT, 1, part, TABLE, 0);
        is_read(rig, 0)
    });
    for (name, change) in TABLES {
        table.add("2.7.5.3.1", format!("indirect-{name}"), move |rig| {
            let mut part = fill(rig)?;
            change(&mut part);
            rig.describe(TABLE_AT, 0, part, TABLE, 0);
            rig.bears(0)
        });
    }
    table.add("2.7.5.3.1", "table-not-negotiated", |rig| {
        let part = fill(rig)?;
        rig.up(&[])?;
        rig.header(0, IN, 0);
        rig.describe(TABLE_AT, 0, part, TABLE, 0);
        rig.bears(0)?;
        ensure(rig.answer(0) != Some(OK), || "it was carried out".to_owned())
    });
    table.add("2.7.5.3.1", "table-with-next", |rig| {
        let part = fill(rig)?;
        rig.describe(TABLE_AT, 0, part, TABLE | NEXT, 1);
        rig.describe(TABLE_AT, 1, rig.data(512, true), 0, 0);
        rig.bears(0)
    });
    table.add("2.7.5.3.1", "table-in-a-table", |rig| {
        let part = fill(rig)?;
        rig.describe(INDIRECT_AT, 1, part, TABLE, 0);
        rig.describe(TABLE_AT, 0, part, TABLE, 0);
        rig.bears(0)
    });
    for (name, next) in
        [("itself", 1), ("its-first", 0), ("beyond-it", 3), ("far-beyond-it", 0xffff)]
    {
        table.add("2.7.5.3.1", format!("in-a-table-next-is-{name}"), move |rig| {
            let part = fill(rig)?;
            rig.describe(INDIRECT_AT, 1, rig.data(512, true), NEXT, next);
            rig.describe(TABLE_AT, 0, part, TABLE, 0);
            rig.bears(0)
        });
    }
    table.add("2.7.5.3.1", "table-longer-than-the-queue", |rig| {
        let part = fill(rig)?;
        let data = rig.data(512, true);
        for index in 1..255 {
            rig.describe(INDIRECT_AT, index, data, NEXT, index + 1);
        }
        let (_, status) = rig.header(0, IN, 0);
        rig.describe(INDIRECT_AT, 255, status, 0, 0);
        rig.describe(TABLE_AT, 0, Part { len: 4096, ..part }, TABLE, 0);
        rig.bears(0)
    });
    table.add("2.7.5.3.1", "table-within-the-rings-table", |rig| {
        let part = fill(rig)?;
        let addr = rig.memory.address(TABLE_AT);
        rig.describe(TABLE_AT, 0, Part { addr, len: 64 * 16, ..part }, TABLE, 0);
        rig.bears(0)
    });
}
