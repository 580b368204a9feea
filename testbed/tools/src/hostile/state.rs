//! Resets and ends of queues while there is work (virtio 1.2 §2.4, §2.6, §4.2.2).

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::{Outcome, Rig, USED_AT};
use anyhow::Result;
use std::thread;
use std::time::Duration;

/// Offers 16 reads of a page, and kicks if told to.
fn busy(rig: &mut Rig, kick: bool) {
    for slot in 0..16 {
        let (header, status) = rig.header(slot.into(), IN, 8);
        rig.chain(slot * 3, &[header, rig.data(4096, true), status]);
        rig.offer(slot * 3);
    }
    if kick {
        rig.kick();
    }
}

/// Nothing is written to the used ring any more.
fn quiet(rig: &Rig) -> Result<()> {
    let before = rig.memory.read16(USED_AT + 2);
    thread::sleep(Duration::from_millis(50));
    same("used.idx some time after", rig.memory.read16(USED_AT + 2), before)
}

pub(crate) fn actions(table: &mut Table) {
    table.add("2.4.1", "reset-with-requests-in-flight", |rig| {
        rig.up(&[])?;
        busy(rig, true);
        rig.window.write(STATUS, 0);
        while rig.status() != 0 {}
        quiet(rig)
    });
    table.add("2.4.1", "reset-20-times-with-requests-in-flight", |rig| {
        for _ in 0..20 {
            rig.up(&[])?;
            busy(rig, true);
        }
        rig.up(&[])?;
        rig.works()
    });
    table.add("4.2.2.2", "queue-stopped-with-requests-in-flight", |rig| {
        rig.up(&[])?;
        busy(rig, true);
        rig.window.write(QUEUE_SEL, 0);
        rig.window.write(QUEUE_READY, 0);
        while rig.window.read(QUEUE_READY) != 0 {}
        quiet(rig)
    });
    table.add("4.2.2.2", "queue-stopped-and-kicked", |rig| {
        rig.up(&[])?;
        rig.window.write(QUEUE_READY, 0);
        busy(rig, false);
        rig.ignores()
    });
    table.add("4.2.2.2", "queue-stopped-and-started-50-times", |rig| {
        rig.up(&[])?;
        for _ in 0..50 {
            rig.window.write(QUEUE_READY, 0);
            rig.window.write(QUEUE_READY, 1);
        }
        rig.alive()?;
        rig.up(&[])?;
        rig.works()
    });
    table.add("2.6.1", "queue-reset-not-negotiated", |rig| {
        rig.up(&[])?;
        rig.window.write(QUEUE_SEL, 0);
        rig.window.write(QUEUE_RESET, 1);
        same("QueueReset", rig.window.read(QUEUE_RESET), 0)?;
        rig.works()
    });
    table.add("2.4.1", "kick-after-reset", |rig| {
        rig.up(&[])?;
        rig.works()?;
        rig.reset()?;
        busy(rig, false);
        rig.ignores()
    });
    table.add("2.4.1", "registers-after-reset-are-as-new", |rig| {
        rig.up(&[])?;
        rig.reset()?;
        rig.window.write(QUEUE_SEL, 0);
        same("QueueReady", rig.window.read(QUEUE_READY), 0)?;
        same("Status", rig.status(), 0)?;
        let max = rig.window.read(QUEUE_SIZE_MAX);
        ensure(max >= 64, || format!("QueueSizeMax is {max}"))
    });
    table.add("2.7", "pages-of-the-rings-taken-away-while-live", |rig| {
        rig.up(&[])?;
        busy(rig, true);
        for at in (0..3 * crate::memory::PAGE).step_by(8) {
            rig.memory.write64(at, u64::MAX);
        }
        rig.kick();
        rig.alive()
    });
    table.add("3.1.1", "second-driver-without-reset", |rig| {
        rig.up(&[])?;
        rig.works()?;
        for status in [1, 3, 11, 15] {
            rig.window.write(STATUS, status);
        }
        rig.place_rings();
        rig.works()
    });
    table.add("2.7.13", "full-ring-of-reads", |rig| {
        rig.up(&[])?;
        busy(rig, true);
        for _ in 0..16 {
            let outcome = rig.outcome();
            ensure(matches!(outcome, Outcome::Answered { len: 4097, .. }), || {
                format!("{outcome:?}")
            })?;
        }
        Ok(())
    });
}
