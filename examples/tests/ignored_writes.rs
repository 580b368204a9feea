//! A driver that writes what the device does not take leaves a trace in the log, and a bounded one.

mod common;

use common::{log::Log, one_disk::OneDisk};
use tracing::Level;
use xen_virtio_backend::fake::{Sharing, Watchdog, reg};

#[test]
fn ignored_writes_are_logged_with_their_reason_and_a_limit() {
    let _watchdog = Watchdog::start();
    let log = Log::start(Level::DEBUG);
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    const GUEST_PAGE_SIZE: u64 = 0x28; // of version 1 of the transport
    for _ in 0..100 {
        window.write(GUEST_PAGE_SIZE, 4096);
    }
    let lines = log.lines("a write of the guest to its registers was ignored");
    assert_eq!(lines.len(), 8, "{lines:#?}");
    for part in ["offset=0x28", "no register is there that a driver may write"] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }
    window.write(reg::STATUS, 3);
    window.write(reg::STATUS, 128 | 3);
    assert_eq!(log.lines("the guest's driver has set FAILED").len(), 1);
}
