//! Feature negotiation and the device status.

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::Rig;
use anyhow::Result;

/// Feature bits that this device doesn't offer, or which no device may be asked for.
const NOT_OFFERED: [(u32, &str); 14] = [
    (0, "barrier"),
    (3, "of-nothing"),
    (7, "scsi"),
    (17, "zoned"),
    (24, "notify-on-empty"),
    (27, "any-layout"),
    (30, "unused"),
    (34, "packed-ring"),
    (36, "order-platform"),
    (37, "sr-iov"),
    (39, "notif-config-data"),
    (41, "admin-vq"),
    (50, "reserved"),
    (63, "last"),
];

const ALL: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

pub(crate) fn actions(table: &mut Table) {
    for (bit, name) in NOT_OFFERED {
        table.add("2.2.2", format!("accept-{name}-not-offered"), move |rig| {
            rig.reset()?;
            ensure(!rig.has(bit), || format!("the device offers bit {bit}"))?;
            rig.window.write(STATUS, ACKNOWLEDGE);
            rig.window.write(STATUS, ACKNOWLEDGE | DRIVER);
            rig.accept(1 << VERSION_1 | 1 << bit);
            rig.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
            same("FEATURES_OK", rig.status() & FEATURES_OK, 0)
        });
    }
    for select in [2, 3, 0x8000_0000, u32::MAX] {
        table.add("4.2.2.1", format!("device-features-page-{select:x}-is-0"), move |rig| {
            rig.reset()?;
            rig.window.write(DEVICE_FEATURES_SEL, select);
            same("DeviceFeatures", rig.window.read(DEVICE_FEATURES), 0)
        });
        table.add(
            "4.2.2.2",
            format!("driver-features-page-{select:x}-spoils-no-other"),
            move |rig| {
                rig.negotiate(&[])?;
                rig.window.write(DRIVER_FEATURES_SEL, select);
                rig.window.write(DRIVER_FEATURES, u32::MAX);
                rig.place_rings();
                rig.go();
                rig.works()
            },
        );
    }
    table.add("6.1", "features-without-version-1", |rig| {
        rig.reset()?;
        rig.window.write(STATUS, ACKNOWLEDGE);
        rig.window.write(STATUS, ACKNOWLEDGE | DRIVER);
        rig.accept(0);
        rig.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        same("FEATURES_OK", rig.status() & FEATURES_OK, 0)
    });
    table.add("2.2.1", "features-again-after-features-ok", |rig| {
        rig.up(&[])?;
        rig.accept(u64::MAX);
        same("the status", rig.status(), ALL)?;
        rig.works()
    });
    table.add("3.1.1", "features-refused-then-right", |rig| {
        rig.reset()?;
        rig.window.write(STATUS, ACKNOWLEDGE);
        rig.window.write(STATUS, ACKNOWLEDGE | DRIVER);
        rig.accept(u64::MAX);
        rig.window.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        same("FEATURES_OK", rig.status() & FEATURES_OK, 0)?;
        rig.up(&[])?;
        rig.works()
    });
    status(table);
}

/// The queue isn't served, and a reset brings the device back.
fn not_served(rig: &mut Rig) -> Result<()> {
    let (header, status) = rig.header(0, IN, 0);
    let data = rig.data(512, true);
    rig.chain(0, &[header, data, status]);
    rig.offer(0);
    rig.ignores()?;
    rig.up(&[])?;
    rig.works()
}

fn status(table: &mut Table) {
    for (value, name) in [
        (DRIVER_OK, "driver-ok-alone"),
        (ACKNOWLEDGE | DRIVER | DRIVER_OK, "driver-ok-without-features-ok"),
        (FEATURES_OK, "features-ok-alone"),
        (0x10, "bit-4"),
        (0x20, "bit-5"),
        (NEEDS_RESET, "needs-reset"),
        (0x100, "bit-8"),
        (!FAILED, "all-but-failed"),
    ] {
        table.add("2.1.1", format!("status-of-a-reset-device-{name}"), move |rig| {
            rig.reset()?;
            rig.place_rings();
            rig.window.write(STATUS, value);
            same("DRIVER_OK", rig.status() & DRIVER_OK, 0)?;
            not_served(rig)
        });
    }
    for (value, name) in [
        (ACKNOWLEDGE, "driver-taken-back"),
        (ACKNOWLEDGE | DRIVER | FEATURES_OK, "driver-ok-taken-back"),
        (ACKNOWLEDGE | DRIVER | DRIVER_OK, "features-ok-taken-back"),
        (ALL | 0x30, "reserved-bits"),
        (ALL | NEEDS_RESET, "needs-reset-by-the-driver"),
        (ALL | 0x100, "more-than-a-byte"),
    ] {
        table.add("2.1.1", format!("status-of-a-live-device-{name}"), move |rig| {
            rig.up(&[])?;
            rig.window.write(STATUS, value);
            same("NEEDS_RESET", rig.status() & NEEDS_RESET, 0)?;
            rig.up(&[])?;
            rig.works()
        });
    }
    table.add("2.1.2", "kick-before-driver-ok", |rig| {
        rig.negotiate(&[])?;
        rig.place_rings();
        not_served(rig)
    });
    table.add("2.1", "kick-after-failed", |rig| {
        rig.up(&[])?;
        rig.window.write(STATUS, ALL | FAILED);
        same("FAILED", rig.status() & FAILED, FAILED)?;
        not_served(rig)
    });
    table.add("2.1", "go-on-after-failed-without-reset", |rig| {
        rig.up(&[])?;
        rig.window.write(STATUS, FAILED);
        rig.window.write(STATUS, ALL);
        not_served(rig)
    });
    table.add("2.1.2", "needs-reset-stays-until-reset", |rig| {
        rig.up(&[])?;
        rig.set_avail(0x7fff);
        rig.kick();
        rig.outcome();
        let broken = rig.status() & NEEDS_RESET;
        same("NEEDS_RESET after an impossible avail.idx", broken, NEEDS_RESET)?;
        rig.window.write(STATUS, ALL);
        same("NEEDS_RESET", rig.status() & NEEDS_RESET, NEEDS_RESET)?;
        same("the interrupt of the configuration", rig.window.read(INTERRUPT_STATUS) & 2, 2)?;
        rig.up(&[])?;
        rig.works()
    });
    table.add("2.4.1", "reset-200-times", |rig| {
        (0..200).try_for_each(|_| rig.reset())?;
        rig.up(&[])?;
        rig.works()
    });
    table.add("2.4.1", "set-up-and-reset-50-times", |rig| {
        for _ in 0..50 {
            rig.up(&[])?;
        }
        rig.works()
    });
    table.add("3.1.1", "status-1000-values", |rig| {
        rig.reset()?;
        for value in 1..1000 {
            rig.window.write(STATUS, value);
        }
        rig.up(&[])?;
        rig.works()
    });
}
