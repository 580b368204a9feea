//! Descriptor chains and the rings they go through (virtio 1.2 §2.7).

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::{Outcome, Part, Rig, TABLE_AT, USED_AT};
use anyhow::{Result, bail};
use std::time::Duration;

/// Addresses with nothing behind them, and lengths that reach them.
const NOWHERE: [(&str, u64, u32); 6] = [
    ("at-0", 0, 512),
    ("beyond-memory", 0x10_0000_0000, 512),
    ("in-a-window", 0x0200_0000, 512),
    ("over-the-end-of-memory", 0x3fff_ff00, 0x1000),
    ("over-the-end-of-all-addresses", u64::MAX - 255, 512),
    ("with-a-grants-bit", 1 << 63 | 0x1000, 512),
];

/// A read whose second descriptor is as told; the header comes before it, the status after.
fn middle(rig: &mut Rig, part: Part, flags: u16, next: u16) -> Result<()> {
    rig.up(&[])?;
    let (header, status) = rig.header(0, IN, 0);
    rig.describe(TABLE_AT, 0, header, NEXT, 1);
    rig.describe(TABLE_AT, 1, part, flags, next);
    rig.describe(TABLE_AT, 2, status, 0, 0);
    rig.bears(0)
}

pub(crate) fn actions(table: &mut Table) {
    for (name, next) in
        [("itself", 1), ("the-head", 0), ("beyond-the-queue", 64), ("far-beyond", 0xffff)]
    {
        table.add("2.7.5.2", format!("chain-back-to-{name}"), move |rig| {
            let data = rig.data(512, true);
            middle(rig, data, NEXT, next)
        });
    }
    table.add("2.7.5.2", "chain-of-every-descriptor-in-a-loop", |rig| {
        rig.up(&[])?;
        let data = rig.data(512, true);
        for index in 0..64 {
            rig.describe(TABLE_AT, index, data, NEXT, (index + 1) % 64);
        }
        rig.bears(0)
    });
    for (name, addr, len) in NOWHERE {
        for write in [true, false] {
            let kind = if write { "data-in" } else { "header" };
            table.add("2.7.5", format!("{kind}-{name}"), move |rig| {
                rig.up(&[])?;
                let (header, status) = rig.header(0, IN, 0);
                let part = Part { addr, len, write };
                if write {
                    rig.chain(0, &[header, part, status]);
                } else {
                    let data = rig.data(512, true);
                    rig.chain(0, &[Part { len: 16, ..part }, data, status]);
                }
                rig.bears(0)
            });
        }
        table.add("2.7.5", format!("status-{name}"), move |rig| {
            rig.up(&[])?;
            let (header, _) = rig.header(0, IN, 0);
            let data = rig.data(512, true);
            rig.chain(0, &[header, data, Part { addr, len: 1, write: true }]);
            rig.bears(0)
        });
    }
    lengths(table);
    order(table);
    avail(table);
}

fn lengths(table: &mut Table) {
    for (name, len) in [("0", 0), ("4-gib-less-1", u32::MAX), ("2-gib", 1 << 31)] {
        table.add("2.7.5", format!("data-of-{name}-bytes"), move |rig| {
            let data = rig.data(len, true);
            middle(rig, data, NEXT, 2)
        });
    }
    table.add("2.7.4", "chain-of-more-than-4-gib", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        let data = rig.data(1 << 31, true);
        rig.chain(0, &[header, data, data, data, status]);
        rig.bears(0)
    });
    table.add("2.7.5", "chain-as-long-as-the-queue", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        let mut chain = vec![header];
        chain.resize(63, rig.data(512, true));
        chain.push(status);
        rig.chain(0, &chain);
        rig.bears(0)
    });
    for (name, len) in [("0", 0), ("1", 1), ("15", 15)] {
        table.add("5.2.6", format!("header-of-{name}-bytes"), move |rig| {
            rig.up(&[])?;
            let (header, status) = rig.header(0, IN, 0);
            rig.chain(0, &[Part { len, ..header }, status]);
            rig.bears(0)
        });
    }
    table.add("2.7.4.1", "header-in-16-descriptors-is-a-header", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        let byte = |at| Part { addr: header.addr + at, len: 1, write: false };
        let mut chain: Vec<Part> = (0..16).map(byte).collect();
        chain.extend([rig.data(512, true), status]);
        rig.chain(0, &chain);
        let outcome = rig.send(0);
        ensure(outcome == Outcome::Answered { head: 0, len: 513 }, || format!("{outcome:?}"))?;
        same("the status", rig.answer(0).unwrap_or(0xee), OK)
    });
}

fn order(table: &mut Table) {
    table.add("2.7.4.2", "readable-after-writable", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, OUT, 4096);
        rig.chain(0, &[header, status, rig.data(512, false)]);
        rig.bears(0)
    });
    table.add("5.2.6", "header-alone", |rig| {
        rig.up(&[])?;
        let (header, _) = rig.header(0, FLUSH, 0);
        rig.chain(0, &[header]);
        rig.bears(0)
    });
    table.add("5.2.6", "status-alone", |rig| {
        rig.up(&[])?;
        let (_, status) = rig.header(0, FLUSH, 0);
        rig.chain(0, &[status]);
        rig.bears(0)
    });
    table.add("5.2.6", "nothing-writable", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        rig.chain(0, &[header, rig.data(512, false), Part { write: false, ..status }]);
        rig.bears(0)?;
        same("the status byte", rig.answer(0).unwrap_or(0xee), 0xee)
    });
    table.add("5.2.6", "status-in-the-middle-of-data", |rig| {
        rig.up(&[])?;
        let (header, _) = rig.header(0, IN, 0);
        rig.chain(0, &[header, rig.data(513, true)]);
        let outcome = rig.send(0);
        ensure(outcome == Outcome::Answered { head: 0, len: 513 }, || format!("{outcome:?}"))
    });
    table.add("2.7.5", "unknown-descriptor-flags", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        rig.describe(TABLE_AT, 0, header, NEXT | 0xfff8, 1);
        rig.describe(TABLE_AT, 1, rig.data(512, true), NEXT | 0xfff8, 2);
        rig.describe(TABLE_AT, 2, status, 0xfff8, 0);
        rig.bears(0)
    });
}

fn avail(table: &mut Table) {
    for head in [64, 65, 0x8000, 0xffff] {
        table.add("2.7.6", format!("head-{head:x}-beyond-the-queue"), move |rig| {
            rig.up(&[])?;
            rig.bears(head)
        });
    }
    for index in [65, 0x8000, 0xffff] {
        table.add("2.7.6", format!("avail-index-jumps-to-{index:x}"), move |rig| {
            rig.up(&[])?;
            rig.set_avail(index);
            rig.kick();
            let outcome = rig.outcome();
            ensure(outcome != Outcome::Silent, || "neither answered nor NEEDS_RESET".to_owned())
        });
    }
    table.add("2.7.6", "avail-index-goes-back", |rig| {
        rig.up(&[])?;
        rig.works()?;
        rig.works()?;
        rig.set_avail(1);
        rig.kick();
        std::thread::sleep(Duration::from_millis(20));
        rig.alive()
    });
    table.add("2.7.13", "one-head-offered-64-times", |rig| {
        rig.up(&[])?;
        let (header, status) = rig.header(0, IN, 0);
        rig.chain(0, &[header, rig.data(512, true), status]);
        (0..64).for_each(|_| rig.offer(0));
        rig.kick();
        for _ in 0..64 {
            match rig.outcome() {
                Outcome::Answered { head: 0, .. } => {}
                // A head that is in flight can't be offered, so the driver is out of order.
                Outcome::Broken => break,
                other => bail!("{other:?}"),
            }
        }
        Ok(())
    });
    table.add("2.7.8", "driver-writes-the-used-index", |rig| {
        rig.up(&[])?;
        rig.works()?;
        rig.memory.write16(USED_AT + 2, 0x1234);
        let (header, status) = rig.header(1, IN, 0);
        rig.chain(8, &[header, rig.data(512, true), status]);
        rig.offer(8);
        rig.kick();
        std::thread::sleep(Duration::from_millis(100));
        same("used.idx", rig.memory.read16(USED_AT + 2), 2)
    });
    table.add("2.7.10", "event-index-far-away", |rig| {
        rig.up(&[EVENT_IDX])?;
        rig.memory.write16(crate::rig::AVAIL_AT + 4 + 64 * 2, 0x8000);
        (0..8).try_for_each(|_| rig.works())?;
        same("InterruptStatus", rig.window.read(INTERRUPT_STATUS), 0)
    });
    table.add("2.7.7", "kick-1000-times-for-nothing", |rig| {
        rig.up(&[])?;
        (0..1000).for_each(|_| rig.kick());
        rig.works()
    });
    for queue in [1, 0xffff, u32::MAX] {
        table.add("4.2.3.3", format!("kick-queue-{queue:x}"), move |rig| {
            rig.up(&[])?;
            rig.window.write(QUEUE_NOTIFY, queue);
            rig.works()
        });
    }
}
