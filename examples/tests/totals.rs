//! What the log says of a disk when it is closed.

mod common;

use common::{log::Log, one_disk::OneDisk};
use tracing::Level;
use virtio_dev::feature::VERSION_1;
use xen_virtio_backend::fake::{FakeDriver, Sharing, Watchdog, reg};

#[test]
fn the_totals_of_a_disk_that_was_reset_have_the_features_that_were_negotiated() {
    let _watchdog = Watchdog::start();
    let log = Log::start(Level::INFO);
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    let driver = FakeDriver::start(window.clone(), &it.kernel, VERSION_1);
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
