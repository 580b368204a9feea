//! The configuration space of a block device (virtio 1.2 §5.2.4) and its generation.

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::window::Window;

/// Fields that a driver must not write: a name, the offset, and the width in bytes.
const READ_ONLY: [(&str, usize, usize); 12] = [
    ("capacity", 0, 8),
    ("size-max", 8, 4),
    ("seg-max", 12, 4),
    ("geometry", 16, 4),
    ("blk-size", 20, 4),
    ("topology", 24, 8),
    ("num-queues", 34, 2),
    ("max-discard-sectors", 36, 4),
    ("max-discard-seg", 40, 4),
    ("max-write-zeroes-sectors", 48, 4),
    ("write-zeroes-may-unmap", 56, 1),
    ("max-secure-erase-sectors", 60, 4),
];

fn read(window: &Window, offset: usize, width: usize) -> u64 {
    let at = CONFIG + offset;
    match width {
        1 => window.read8(at).into(),
        2 => window.read16(at).into(),
        4 => window.read(at).into(),
        _ => window.read64(at),
    }
}

fn write(window: &Window, offset: usize, width: usize, value: u64) {
    let at = CONFIG + offset;
    match width {
        1 => window.write8(at, value as u8),
        2 => window.write16(at, value as u16),
        4 => window.write(at, value as u32),
        _ => window.write64(at, value),
    }
}

pub(crate) fn actions(table: &mut Table) {
    for (name, offset, width) in READ_ONLY {
        table.add("5.2.4", format!("write-{name}"), move |rig| {
            rig.up(&[])?;
            let before = read(&rig.window, offset, width);
            for value in [!before, 0, u64::MAX] {
                write(&rig.window, offset, width, value);
            }
            same(name, read(&rig.window, offset, width), before)?;
            rig.works()
        });
    }
    for offset in [0x80, 0xc0, 0xf8] {
        table.add("2.5.1", format!("beyond-the-configuration-{offset:x}"), move |rig| {
            rig.up(&[])?;
            for width in [1, 2, 4, 8] {
                write(&rig.window, offset, width, u64::MAX);
                same("what is beyond", read(&rig.window, offset, width), 0)?;
            }
            rig.works()
        });
    }
    table.add("2.5.1", "every-byte-of-the-window-read", |rig| {
        rig.up(&[])?;
        for at in CONFIG..Window::LEN {
            rig.window.read8(at);
        }
        rig.works()
    });
    table.add("2.5.1", "every-byte-of-the-configuration-written", |rig| {
        rig.up(&[])?;
        (CONFIG..Window::LEN).for_each(|at| rig.window.write8(at, 0xff));
        rig.works()
    });
    table.add("4.2.2.2", "capacity-by-any-width-is-the-same", |rig| {
        rig.reset()?;
        let whole = read(&rig.window, 0, 8);
        for width in [1, 2, 4] {
            let parts = (0..8).step_by(width).rev();
            let joined = parts.fold(0, |value: u64, offset| {
                value.checked_shl(8 * width as u32).unwrap_or(0) | read(&rig.window, offset, width)
            });
            same("the capacity", joined, whole)?;
        }
        Ok(())
    });
    table.add("4.2.2.1", "generation-stays-while-nothing-changes", |rig| {
        rig.up(&[])?;
        let before = rig.window.read(CONFIG_GENERATION);
        rig.works()?;
        for offset in 0..64 {
            read(&rig.window, offset, 1);
        }
        same("ConfigGeneration", rig.window.read(CONFIG_GENERATION), before)
    });
    table.add("3.1.1", "write-before-acknowledge", |rig| {
        rig.reset()?;
        let before = rig.window.read8(WRITEBACK);
        rig.window.write8(WRITEBACK, before ^ 1);
        same("writeback", rig.window.read8(WRITEBACK), before)
    });
    for value in [0, 1, 2, 0x80, 0xff] {
        table.add("5.2.5.1", format!("writeback-{value:x}"), move |rig| {
            rig.up(&[CONFIG_WCE])?;
            rig.window.write8(WRITEBACK, value);
            let now = rig.window.read8(WRITEBACK);
            ensure(now <= 1, || format!("writeback is {now:#x}"))?;
            rig.works()
        });
    }
    table.add("5.2.5.1", "writeback-without-config-wce", |rig| {
        rig.up(&[])?;
        let before = rig.window.read8(WRITEBACK);
        rig.window.write8(WRITEBACK, before ^ 1);
        same("writeback", rig.window.read8(WRITEBACK), before)
    });
    table.add("5.2.5.1", "writeback-switched-500-times", |rig| {
        rig.up(&[CONFIG_WCE])?;
        (0..500).for_each(|round| rig.window.write8(WRITEBACK, (round & 1) as u8));
        rig.works()
    });
}
