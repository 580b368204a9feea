//! What the log says of a disk when it is closed.

mod common;

use common::{
    guest_kernel::Sharing,
    host::OneDisk,
    log::Log,
    ring_driver::{RingDriver, VERSION_1},
    watchdog::watchdog,
    window::reg,
};
use tracing::Level;

#[test]
fn the_totals_of_a_disk_that_was_reset_have_the_features_that_were_negotiated() {
    let _watchdog = watchdog();
    let log = Log::start(Level::INFO);
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    let driver = RingDriver::start(window.clone(), &it.kernel, VERSION_1);
    window.write(reg::STATUS, 0);
    drop((driver, it));
    let totals = log.lines("disk totals");
    assert_eq!(totals.len(), 1, "{totals:#?}");
    assert!(
        totals[0].contains("features=0x1") && !totals[0].contains("features=0x0"),
        "{totals:?}"
    );
    assert!(totals[0].contains("driver=\"none\""), "{totals:?}");
}
