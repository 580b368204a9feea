//! Queues and where they are said to be (virtio 1.2 §2.7, §4.2.3.2).

use crate::action::Table;
use crate::check::same;
use crate::reg::*;
use crate::rig::{AVAIL_AT, Rig, TABLE_AT, USED_AT};
use anyhow::Result;

/// Where nothing is that a ring could be in.
const NOWHERE: [(&str, u64); 6] = [
    ("at-0", 0),
    ("beyond-memory", 0x10_0000_0000),
    ("in-a-window", 0x0200_0000),
    ("in-the-interrupt-controller", 0x0300_1000),
    ("at-the-end-of-all-addresses", u64::MAX - 0xf),
    ("with-a-grants-bit", 1 << 63 | 0x1000),
];

const RINGS: [(&str, usize); 3] = [("table", 0), ("avail", 1), ("used", 2)];

fn rings(rig: &Rig) -> [u64; 3] {
    [TABLE_AT, AVAIL_AT, USED_AT].map(|offset| rig.memory.address(offset))
}

/// Offers a read on rings of which one is elsewhere: it can't be answered where the rings really are.
fn misplaced(rig: &mut Rig, which: usize, address: u64) -> Result<()> {
    rig.negotiate(&[])?;
    let mut rings = rings(rig);
    rings[which] = address;
    rig.place(rings[0], rings[1], rings[2]);
    rig.go();
    let (header, status) = rig.header(0, IN, 0);
    let data = rig.data(512, true);
    rig.chain(0, &[header, data, status]);
    rig.offer(0);
    rig.ignores()?;
    rig.up(&[])?;
    rig.works()
}

pub(crate) fn actions(table: &mut Table) {
    for (ring, which) in RINGS {
        for (place, address) in NOWHERE {
            table.add("2.7", format!("{ring}-{place}"), move |rig| misplaced(rig, which, address));
        }
    }
    for (ring, which, by) in [("table", 0, 8), ("avail", 1, 1), ("used", 2, 2)] {
        table.add("2.7", format!("{ring}-not-aligned"), move |rig| {
            let address = rings(rig)[which] + by;
            misplaced(rig, which, address)
        });
    }
    for size in [0, 3, 63, 0x8000, 0xffff, 0x1_0000, u32::MAX] {
        table.add("4.2.2.2", format!("queue-size-{size:x}"), move |rig| {
            rig.negotiate(&[])?;
            rig.window.write(QUEUE_SEL, 0);
            rig.window.write(QUEUE_SIZE, size);
            for (register, address) in
                [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(rings(rig))
            {
                rig.window.write(register, address as u32);
                rig.window.write(register + 4, (address >> 32) as u32);
            }
            rig.window.write(QUEUE_READY, 1);
            rig.go();
            rig.kick();
            rig.alive()?;
            rig.up(&[])?;
            rig.works()
        });
    }
    for queue in [1, 8, 0xffff, 0x1_0000, u32::MAX] {
        table.add("4.2.3.2", format!("absent-queue-{queue:x}"), move |rig| {
            rig.negotiate(&[])?;
            rig.window.write(QUEUE_SEL, queue);
            same("QueueSizeMax of an absent queue", rig.window.read(QUEUE_SIZE_MAX), 0)?;
            rig.window.write(QUEUE_SIZE, 64);
            rig.window.write(QUEUE_DESC, 0x4000_0000);
            rig.window.write(QUEUE_READY, 1);
            same("QueueReady of an absent queue", rig.window.read(QUEUE_READY), 0)?;
            rig.place_rings();
            rig.go();
            rig.window.write(QUEUE_NOTIFY, queue);
            rig.works()
        });
    }
    for (name, value) in [("2", 2), ("all-ones", u32::MAX)] {
        table.add("4.2.2.2", format!("queue-ready-{name}"), move |rig| {
            rig.negotiate(&[])?;
            rig.place_rings();
            rig.window.write(QUEUE_READY, value);
            rig.go();
            rig.alive()?;
            rig.up(&[])?;
            rig.works()
        });
    }
    table.add("2.7", "all-rings-at-one-place", |rig| {
        rig.negotiate(&[])?;
        let at = rig.memory.address(USED_AT);
        rig.place(at, at, at);
        rig.go();
        rig.kick();
        rig.alive()
    });
    table.add("4.2.2.2", "addresses-while-ready", |rig| {
        rig.up(&[])?;
        for register in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE] {
            rig.window.write(register, 0x1000);
            rig.window.write(register + 4, u32::MAX);
        }
        rig.works()
    });
    table.add("4.2.2.2", "size-while-ready", |rig| {
        rig.up(&[])?;
        rig.window.write(QUEUE_SIZE, 2);
        (0..4).try_for_each(|_| rig.works())
    });
    table.add("4.2.3.2", "driver-ok-without-a-queue", |rig| {
        rig.negotiate(&[])?;
        rig.go();
        rig.ignores()
    });
}
