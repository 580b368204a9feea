//! What a running guest of virtio-pci costs beside its ring: a notification, and a message.

use std::hint::black_box;
use std::sync::Arc;

use virtio_blk_dev::BlockDevice;
use virtio_dev::fake::NoQueues;
use virtio_dev::{IrqLine, WriteOutcome};
use virtio_pci_dev::PciTransport;

use crate::count::count;
use crate::device::device;

/// Where the driver's notifications of queue 0 go, in the BAR.
const NOTIFY: u64 = 0x1000;
/// The entry of vector 1, in the BAR.
const ENTRY: u64 = 0x2010;

/// A live device with vector 1 for its queue.
fn function() -> PciTransport<BlockDevice> {
    let line = |_, _| Some(Arc::new(|| {}) as Arc<dyn IrqLine>);
    let mut function = PciTransport::new(device(), line).expect("a function");
    for (at, value) in [(0x04, 0x0006_u32), (0x40, 0x8000_0000)] {
        let outcome = function.config_write(at, &value.to_le_bytes(), &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Done);
    }
    for (at, value, width) in [
        (ENTRY + 12, 0, 4),
        (0x14, 1, 1),
        (0x14, 3, 1),
        (0x08, 1, 4),
        (0x0c, 1, 4),
        (0x14, 11, 1),
        (0x1a, 1, 2),
        (0x1c, 1, 2),
        (0x14, 15, 1),
    ] {
        let value = u32::to_le_bytes(value);
        let outcome = function.bar_write(at, &value[..width], &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Done, "{at:#x}");
    }
    function
}

pub(crate) fn notify() {
    let mut function = function();
    count(1, || {
        let outcome = function.bar_write(black_box(NOTIFY), black_box(&[0, 0]), &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Notify(0));
    });
}

/// An interrupt without what raises it.
pub(crate) fn message() {
    let function = function();
    let interrupt = function.interrupt(0);
    let before = interrupt.raised();
    count(1, || black_box(&interrupt).used_buffer());
    assert!(interrupt.raised() > before, "each is sent");
}
