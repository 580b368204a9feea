//! Control registers: what may be read and written, how wide, and what lies between them.

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;

/// Registers that a driver may only read.
const READ_ONLY: [(&str, usize); 12] = [
    ("magic", MAGIC),
    ("version", VERSION),
    ("device-id", DEVICE_ID),
    ("vendor-id", VENDOR_ID),
    ("device-features", DEVICE_FEATURES),
    ("queue-size-max", QUEUE_SIZE_MAX),
    ("interrupt-status", INTERRUPT_STATUS),
    ("shm-len-low", SHM_LEN_LOW),
    ("shm-len-high", SHM_LEN_HIGH),
    ("shm-base-low", SHM_BASE_LOW),
    ("shm-base-high", SHM_BASE_HIGH),
    ("config-generation", CONFIG_GENERATION),
];

/// Registers that a driver may only write.
const WRITE_ONLY: [(&str, usize); 11] = [
    ("device-features-sel", DEVICE_FEATURES_SEL),
    ("driver-features", DRIVER_FEATURES),
    ("driver-features-sel", DRIVER_FEATURES_SEL),
    ("queue-sel", QUEUE_SEL),
    ("queue-size", QUEUE_SIZE),
    ("queue-notify", QUEUE_NOTIFY),
    ("interrupt-ack", INTERRUPT_ACK),
    ("queue-desc", QUEUE_DESC),
    ("queue-driver", QUEUE_DRIVER),
    ("queue-device", QUEUE_DEVICE),
    ("shm-sel", SHM_SEL),
];

/// Places without a register.
const RESERVED: [usize; 12] =
    [0x018, 0x01c, 0x028, 0x02c, 0x03c, 0x040, 0x048, 0x054, 0x068, 0x074, 0x0c8, 0x0f8];

pub(crate) fn actions(table: &mut Table) {
    for (what, register, value) in [
        ("magic-is-virt", MAGIC, 0x7472_6976),
        ("version-is-2", VERSION, 2),
        ("device-is-a-disk", DEVICE_ID, 2),
        ("reset-device-has-status-0", STATUS, 0),
        ("reset-device-has-no-interrupt", INTERRUPT_STATUS, 0),
    ] {
        table.add("4.2.2", what, move |rig| {
            rig.reset()?;
            same(what, rig.window.read(register), value)
        });
    }
    for (name, register) in READ_ONLY {
        table.add("4.2.2.2", format!("write-read-only-{name}"), move |rig| {
            rig.up(&[])?;
            let before = rig.window.read(register);
            for value in [!before, 0, u32::MAX] {
                rig.window.write(register, value);
            }
            same(name, rig.window.read(register), before)?;
            rig.works()
        });
    }
    for (name, register) in WRITE_ONLY {
        table.add("4.2.2.2", format!("read-write-only-{name}"), move |rig| {
            rig.up(&[])?;
            rig.window.read(register);
            rig.works()
        });
    }
    for offset in RESERVED {
        table.add("4.2.2", format!("reserved-{offset:03x}"), move |rig| {
            rig.up(&[])?;
            rig.window.write(offset, u32::MAX);
            same("what is reserved", rig.window.read(offset), 0)?;
            rig.works()
        });
    }
    narrow_and_wide(table);
    for select in [0, 1, 0xffff, u32::MAX] {
        table.add("4.2.2.1", format!("shared-memory-{select:x}-is-absent"), move |rig| {
            rig.reset()?;
            rig.window.write(SHM_SEL, select);
            for register in [SHM_LEN_LOW, SHM_LEN_HIGH, SHM_BASE_LOW, SHM_BASE_HIGH] {
                same("a register of shared memory", rig.window.read(register), u32::MAX)?;
            }
            Ok(())
        });
    }
    interrupts(table);
}

/// Control registers are 32 bits wide; other accesses must do no harm, least of all to the status.
fn narrow_and_wide(table: &mut Table) {
    for width in [1_usize, 2, 8] {
        table.add("4.2.2.2", format!("status-by-{width}-bytes-does-not-reset"), move |rig| {
            rig.up(&[])?;
            match width {
                1 => rig.window.write8(STATUS, 0),
                2 => rig.window.write16(STATUS, 0),
                _ => rig.window.write64(STATUS, 0),
            }
            same("the status", rig.status(), 15)?;
            rig.works()
        });
        table.add("4.2.2.2", format!("every-register-read-by-{width}-bytes"), move |rig| {
            rig.up(&[])?;
            for offset in (0..CONFIG).step_by(8) {
                match width {
                    1 => u64::from(rig.window.read8(offset)),
                    2 => rig.window.read16(offset).into(),
                    _ => rig.window.read64(offset),
                };
            }
            rig.works()
        });
        table.add(
            "4.2.2.2",
            format!("every-register-but-status-written-by-{width}-bytes"),
            move |rig| {
                rig.up(&[])?;
                for offset in (0..CONFIG).step_by(8).filter(|offset| *offset != STATUS) {
                    match width {
                        1 => rig.window.write8(offset, 0xff),
                        2 => rig.window.write16(offset, 0xffff),
                        _ => rig.window.write64(offset, u64::MAX),
                    }
                }
                same("the status", rig.status(), 15)
            },
        );
    }
}

fn interrupts(table: &mut Table) {
    table.add("4.2.3.4", "interrupt-stays-until-acknowledged", |rig| {
        rig.up(&[])?;
        rig.works()?;
        for _ in 0..3 {
            same("InterruptStatus", rig.window.read(INTERRUPT_STATUS) & 1, 1)?;
        }
        rig.window.write(INTERRUPT_ACK, 1);
        same("InterruptStatus after its ACK", rig.window.read(INTERRUPT_STATUS), 0)
    });
    table.add("4.2.3.4", "acknowledge-what-was-not-raised", |rig| {
        rig.up(&[])?;
        rig.works()?;
        rig.window.write(INTERRUPT_ACK, !1);
        same("InterruptStatus after another bit's ACK", rig.window.read(INTERRUPT_STATUS), 1)
    });
    table.add("4.2.3.4", "acknowledge-without-an-interrupt", |rig| {
        rig.up(&[])?;
        rig.window.write(INTERRUPT_ACK, u32::MAX);
        same("InterruptStatus", rig.window.read(INTERRUPT_STATUS), 0)?;
        rig.works()
    });
    table.add("2.4.1", "reset-clears-the-interrupt", |rig| {
        rig.up(&[])?;
        rig.works()?;
        rig.reset()?;
        same("InterruptStatus after a reset", rig.window.read(INTERRUPT_STATUS), 0)
    });
    table.add("2.7.10", "never-acknowledged-100-requests", |rig| {
        rig.up(&[])?;
        (0..100).try_for_each(|_| rig.works())?;
        let pending = rig.window.read(INTERRUPT_STATUS);
        ensure(pending & 1 == 1, || format!("InterruptStatus is {pending:#x}"))
    });
}
