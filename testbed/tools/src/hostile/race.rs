//! Two vCPUs at once: while one does what a driver does, the other works against it.

use crate::action::Table;
use crate::reg::*;
use crate::rig::{AVAIL_AT, DATA_AT, HEADER_AT, INDIRECT_AT, Part, Rig, TABLE_AT, USED_AT};
use anyhow::{Context as _, Result};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Turns of the one that counts; the other goes on until it has ended.
const TURNS: u32 = 150;
const SCRATCH: u64 = 2048;

/// Keeps the calling thread on one vCPU.
fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a set of CPUs is plain bits, all of which may be zero.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpu` is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is read for as long as the call lasts.
    let done = unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &raw const set) };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()).context("pinning to a vCPU")
    }
}

/// Runs `one` so many times on vCPU 0 while `other` goes on on vCPU 1; then the device must work.
fn race(rig: &mut Rig, one: impl Fn(&Rig, u32), other: impl Fn(&Rig, u32) + Sync) -> Result<()> {
    let done = AtomicBool::new(false);
    let shared: &Rig = rig;
    thread::scope(|scope| {
        let against = scope.spawn(|| {
            pin(1)?;
            let mut turn = 0_u32;
            while !done.load(Ordering::Relaxed) {
                other(shared, turn);
                turn = turn.wrapping_add(1);
            }
            Ok(())
        });
        let pinned = pin(0);
        (0..TURNS).for_each(|turn| one(shared, turn));
        done.store(true, Ordering::Relaxed);
        let against = against.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the other panicked")));
        pinned.and(against)
    })?;
    rig.alive()?;
    rig.up(&[])?;
    rig.works()
}

/// A request in the ring's first three descriptors, offered over and over by `again`.
fn prepare(rig: &mut Rig, bits: &[u32], kind: u32) -> Result<()> {
    rig.up(bits)?;
    let (header, status) = rig.header(0, kind, SCRATCH);
    rig.chain(0, &[header, rig.data(512, kind == IN), status]);
    Ok(())
}

fn again(rig: &Rig, turn: u32) {
    rig.set_avail(turn as u16 + 1);
    rig.kick();
}

pub(crate) fn actions(table: &mut Table) {
    table.add("2.7.13", "kick-while-the-other-kicks", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, _| rig.kick())
    });
    table.add("2.4.1", "kick-while-the-other-resets", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, _| rig.window.write(STATUS, 0))
    });
    table.add("4.2.2.2", "kick-while-the-other-stops-the-queue", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| rig.window.write(QUEUE_READY, turn & 1))
    });
    table.add("4.2.2.2", "kick-while-the-other-moves-the-rings", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| {
            rig.window.write(QUEUE_READY, 0);
            rig.window.write(QUEUE_DESC + 4, turn);
            rig.window.write(QUEUE_READY, 1);
        })
    });
    table.add("2.1.1", "status-from-both", |rig| {
        rig.reset()?;
        race(
            rig,
            |rig, turn| rig.window.write(STATUS, [1, 3, 11, 15][turn as usize % 4]),
            |rig, turn| rig.window.write(STATUS, turn & 0xff),
        )
    });
    table.add("2.2.1", "features-while-the-other-ends-them", |rig| {
        rig.reset()?;
        race(
            rig,
            |rig, turn| rig.accept(u64::from(turn) << 28 | 1 << VERSION_1),
            |rig, turn| rig.window.write(STATUS, [0, 3, 11][turn as usize % 3]),
        )
    });
    table.add("4.2.2.2", "queue-select-from-both", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, |rig, _| rig.place_rings(), |rig, turn| rig.window.write(QUEUE_SEL, turn & 3))
    });
    table.add("5.2.5.1", "writeback-while-the-other-writes", |rig| {
        prepare(rig, &[CONFIG_WCE], OUT)?;
        race(rig, again, |rig, turn| rig.window.write8(WRITEBACK, (turn & 1) as u8))
    });
    table.add("4.2.3.4", "acknowledge-while-interrupts-come", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, _| {
            let pending = rig.window.read(INTERRUPT_STATUS);
            rig.window.write(INTERRUPT_ACK, pending);
        })
    });
    table.add("4.2.2.1", "configuration-read-while-it-changes", |rig| {
        prepare(rig, &[CONFIG_WCE], IN)?;
        race(
            rig,
            |rig, _| {
                rig.window.read64(CONFIG);
                rig.window.read(CONFIG_GENERATION);
            },
            |rig, turn| rig.window.write8(WRITEBACK, (turn & 1) as u8),
        )
    });
    table.add("4.2.2", "any-register-from-both", |rig| {
        rig.up(&[])?;
        let any = |rig: &Rig, turn: u32| {
            let mixed = turn.wrapping_mul(0x9e37_79b1);
            // QueueDesc is left alone: what is there could be anybody's memory.
            let register = (mixed >> 26) as usize * 4 % QUEUE_DESC;
            rig.window.write(register, mixed);
        };
        race(rig, any, move |rig, turn| any(rig, turn ^ 0x5555))
    });
    memory(table);
}

/// The same for what is in memory: read once by a device that checks it, or it is another the second time.
fn memory(table: &mut Table) {
    table.add("2.7.5", "descriptor-length-changes-while-it-is-read", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| {
            rig.memory.write32(TABLE_AT + 16 + 8, if turn & 1 == 0 { 512 } else { u32::MAX });
        })
    });
    table.add("2.7.5", "descriptor-address-changes-while-it-is-read", |rig| {
        prepare(rig, &[], IN)?;
        let good = rig.memory.address(DATA_AT);
        race(rig, again, move |rig, turn| {
            rig.memory.write64(TABLE_AT + 16, if turn & 1 == 0 { good } else { 0x10_0000_0000 });
        })
    });
    table.add("2.7.5", "next-changes-while-it-is-read", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| rig.memory.write16(TABLE_AT + 16 + 14, (turn % 5) as u16))
    });
    table.add("2.7.5.3", "indirect-table-changes-while-it-is-read", |rig| {
        prepare(rig, &[INDIRECT], IN)?;
        let (header, status) = rig.header(0, IN, 0);
        rig.describe(INDIRECT_AT, 0, header, NEXT, 1);
        rig.describe(INDIRECT_AT, 1, rig.data(512, true), NEXT, 2);
        rig.describe(INDIRECT_AT, 2, status, 0, 0);
        let addr = rig.memory.address(INDIRECT_AT);
        rig.describe(TABLE_AT, 0, Part { addr, len: 48, write: false }, TABLE, 0);
        race(rig, again, |rig, turn| rig.memory.write16(INDIRECT_AT + 16 + 14, (turn % 4) as u16))
    });
    table.add("5.2.6", "request-type-changes-while-it-is-read", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| rig.memory.write32(HEADER_AT, turn % 16))
    });
    table.add("5.2.6", "sector-changes-while-it-is-read", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| {
            rig.memory.write64(HEADER_AT + 8, if turn & 1 == 0 { SCRATCH } else { u64::MAX });
        })
    });
    table.add("2.7.6", "avail-index-runs-away", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, |rig, _| rig.kick(), |rig, turn| rig.memory.write16(AVAIL_AT + 2, turn as u16))
    });
    table.add("2.7.8", "used-ring-written-by-the-driver", |rig| {
        prepare(rig, &[], IN)?;
        race(rig, again, |rig, turn| rig.memory.write16(USED_AT + 2, turn as u16))
    });
}
