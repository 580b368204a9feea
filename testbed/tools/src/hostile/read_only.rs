//! What would change a read-only disk (virtio 1.2 §5.2.6.2); the ordinary driver then finds zeroes.

use crate::action::Table;
use crate::check::{ensure, same};
use crate::reg::*;
use crate::rig::DATA_AT;

pub(crate) fn actions(table: &mut Table) {
    for (kind, name) in [(OUT, "write"), (11, "discard"), (13, "zeroes"), (14, "secure-erase")] {
        table.add("5.2.6.2", format!("read-only-{name}"), move |rig| {
            rig.reset()?;
            ensure(rig.has(BLK_RO), || "the disk isn't read-only".to_owned())?;
            rig.up(&[BLK_RO])?;
            rig.memory.fill(DATA_AT, &[0x5a; 512]);
            let data = rig.data(if kind == OUT { 512 } else { 16 }, false);
            same("the status", rig.request(kind, 0, &[data])?, IOERR)
        });
    }
    table.add("5.2.6.2", "read-only-write-without-the-feature", |rig| {
        rig.up(&[])?;
        rig.memory.fill(DATA_AT, &[0x5a; 512]);
        let data = rig.data(512, false);
        same("the status", rig.request(OUT, 0, &[data])?, IOERR)
    });
}
