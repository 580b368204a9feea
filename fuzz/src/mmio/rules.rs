//! What must be true of a transport after whatever was done to it, said without its own words.

use virtio_dev::{ControlState, Status, VirtioDevice};
use virtio_mmio_dev::Register;

use crate::device::{ACCESS_PLATFORM, Transport, VERSION_1};

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// The driver wrote these bytes at an offset.
    Write(u64, &'a [u8]),
    /// A worker was at work, or came or went.
    Worker,
    /// The device's configuration changed.
    Config,
    /// The reset is done.
    ResetDone,
    /// The transport is another one, made from the state.
    Restored,
    /// Nothing that may change anything.
    Nothing,
}

impl Event<'_> {
    /// The value written to `register`, if that is what happened.
    fn written(self, register: Register) -> Option<u32> {
        match self {
            Self::Write(offset, data) if offset == register.offset() => {
                Some(u32::from_le_bytes(data.try_into().ok()?))
            }
            _ => None,
        }
    }

    /// The driver asked for a reset, which is done at once if no queue is in service.
    pub(super) fn is_reset(self) -> bool {
        self.written(Register::Status) == Some(0)
    }
}

const NEEDS_RESET: u8 = Status::DEVICE_NEEDS_RESET.bits();
const FAILED: u8 = Status::FAILED.bits();

/// Checks the step from `old` to the state that `transport` is in now, and how often the
/// interrupt line was raised meanwhile.
pub(super) fn check(old: &ControlState, transport: &Transport, event: Event<'_>, edges: u64) {
    let new = &transport.state();
    if let Event::Nothing = event {
        assert_eq!(old, new, "a look changed something");
    }
    check_status(old, new, event);
    check_features(old, new, transport);
    check_interrupt(old, new, event, edges);
    check_queue(old, new, transport);
}

fn check_status(old: &ControlState, new: &ControlState, event: Event<'_>) {
    let (before, after) = (old.status.bits(), new.status.bits());
    let (gained, lost) = (after & !before, before & !after);
    if lost != 0 {
        let reset = matches!(event, Event::ResetDone) || event.is_reset();
        assert!(reset, "{event:?} took {lost:#x} from the status");
        assert_eq!(after, 0, "a reset left something");
    }
    if gained & NEEDS_RESET != 0 {
        assert!(matches!(event, Event::Worker), "{event:?} set DEVICE_NEEDS_RESET");
    }
    let gained = gained & !NEEDS_RESET;
    if gained == 0 {
        return;
    }
    let Some(value) = event.written(Register::Status) else {
        panic!("{event:?} set {gained:#x} in the status");
    };
    assert!(!old.reset_pending, "the status moves while a reset is under way");
    assert!(before & FAILED == 0, "the status moves after FAILED");
    assert_eq!(u32::from(gained) & !value, 0, "more was set than written");
    // Virtio 1.2 §3.1.1: one after the other, the features' acceptance read back in between.
    let comes_after = |bit: Status, needed: Status, by: u8| {
        assert!(
            gained & bit.bits() == 0 || by & needed.bits() != 0,
            "{bit:?} without {needed:?}: {before:#x} to {after:#x}"
        );
    };
    comes_after(Status::FEATURES_OK, Status::DRIVER, before);
    comes_after(Status::DRIVER_OK, Status::DRIVER, before);
    let both = Status::FEATURES_OK | Status::DRIVER_OK;
    assert_ne!(gained & both.bits(), both.bits(), "nobody has read FEATURES_OK back");
    assert!(
        gained & Status::FEATURES_OK.bits() == 0 || before & Status::DRIVER_OK.bits() == 0,
        "features are accepted of a live device"
    );
    if gained & FAILED == 0 {
        // §2.1: the driver must not clear a bit.
        let kept = u32::from(before & !NEEDS_RESET);
        assert_eq!(kept & !value, 0, "a write that clears bits was taken: {value:#x}");
    }
}

fn check_features(old: &ControlState, new: &ControlState, transport: &Transport) {
    let features = transport.features();
    let final_by = Status::FEATURES_OK | Status::DRIVER_OK;
    if !new.status.intersects(final_by) {
        assert_eq!(features, 0, "features before FEATURES_OK");
        return;
    }
    let version_1 = if new.status.contains(Status::FEATURES_OK) { VERSION_1 } else { 0 };
    let offered = transport.device_features();
    // What is offered of it, is required.
    let required = version_1 | offered & ACCESS_PLATFORM;
    assert_eq!(features & !offered, 0, "features that nobody offered");
    assert_eq!(features & required, required, "features that nobody can do without");
    if old.status.intersects(final_by) {
        assert_eq!(old.driver_features, new.driver_features, "features changed after FEATURES_OK");
    }
}

fn check_interrupt(old: &ControlState, new: &ControlState, event: Event<'_>, edges: u64) {
    let (before, after) = (old.interrupt_status, new.interrupt_status);
    assert_eq!(after & !3, 0, "unknown bits");
    let (gained, lost) = (after & !before, before & !after);
    if gained != 0 {
        assert!(matches!(event, Event::Worker | Event::Config), "{event:?} is an interrupt");
        assert!(is_live(new.status), "an interrupt before DRIVER_OK or after FAILED");
        assert!(edges > 0, "an interrupt without an edge");
    } else if !matches!(event, Event::Restored) {
        assert_eq!(edges, 0, "{event:?} raised the line for nothing");
    }
    if lost != 0 && !matches!(event, Event::ResetDone) && !event.is_reset() {
        let acknowledged = event.written(Register::InterruptAck).unwrap_or(0);
        assert_eq!(u32::from(lost) & !acknowledged, 0, "more was cleared than acknowledged");
    }
    if new.config_generation != old.config_generation {
        // Features, too, may change what is read of the configuration.
        let config = matches!(event, Event::Write(0x100.., _) | Event::Config | Event::ResetDone)
            || event.written(Register::Status).is_some();
        assert!(config, "{event:?} changed the configuration's generation");
    }
    if matches!(event, Event::Write(..)) && !event.is_reset() {
        // All that a driver can change of the configuration is part of the device's saved state.
        let changed = old.device != new.device;
        assert_eq!(new.config_generation != old.config_generation, changed, "{event:?}");
    }
}

fn is_live(status: Status) -> bool {
    status.contains(Status::DRIVER_OK) && !status.contains(Status::FAILED)
}

fn check_queue(old: &ControlState, new: &ControlState, transport: &Transport) {
    assert!(transport.queue(1).is_none(), "a second queue");
    let (before, after) = (&old.queues[0], &new.queues[0]);
    if before.ready && after.ready {
        assert_eq!(
            (before.size, before.desc_table, before.avail_ring, before.used_ring),
            (after.size, after.desc_table, after.avail_ring, after.used_ring),
            "a queue moved while it was ready"
        );
    }
    if after.ready {
        let max = transport.device().queue_max_sizes()[0];
        assert!(after.size.is_power_of_two() && after.size <= max, "a queue of {}", after.size);
    }
    if let Some(queue) = transport.queue(0) {
        assert!(after.ready && !after.stopping && !new.reset_pending, "{after:?} is live");
        assert!(is_live(new.status), "a live queue before DRIVER_OK or after FAILED");
        assert_eq!(queue.size, after.size);
    }
}

/// Checks what the driver reads: `data`, found at `offset`.
pub(super) fn check_read(transport: &Transport, offset: u64, data: &[u8]) {
    if let Some(at) = offset.checked_sub(0x100) {
        let config = transport.device().config();
        let at = usize::try_from(at).expect("a short window");
        let expected: Vec<u8> = match data.len() {
            1 | 2 | 4 | 8 => {
                (at..).take(data.len()).map(|at| *config.get(at).unwrap_or(&0)).collect()
            }
            len => vec![0; len],
        };
        assert_eq!(data, expected, "configuration at {at:#x}");
        return;
    }
    let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
        assert!(data.iter().all(|byte| *byte == 0), "{offset:#x} in {} bytes", data.len());
        return;
    };
    let state = transport.state();
    let queue = state.queues.get(usize::try_from(state.queue_sel).unwrap_or(usize::MAX));
    let offered = transport.device_features();
    let expected = match offset {
        0x00 => 0x7472_6976,
        0x04 | 0x08 => 2,
        0x0c => u32::from_le_bytes(*b"XVT\0"),
        0x10 => match state.device_features_sel {
            0 => offered as u32,
            1 => (offered >> 32) as u32,
            _ => 0,
        },
        0x34 => match state.queue_sel {
            0 => transport.device().queue_max_sizes()[0].into(),
            _ => 0,
        },
        0x44 => queue.is_some_and(|queue| queue.ready).into(),
        0x60 => state.interrupt_status.into(),
        0x70 => state.status.bits().into(),
        0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
        0xc0 => queue.is_some_and(|queue| queue.resetting).into(),
        0xfc => state.config_generation,
        _ => 0,
    };
    assert_eq!(value, expected, "the register at {offset:#x}");
}
