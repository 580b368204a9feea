//! What must be true of a function after whatever was done to it, said without its own words.

use virtio_blk_dev::BlockDevice;
use virtio_dev::Status;
use virtio_pci_dev::{PciState, PciTransport, VectorState};

use crate::device::{ACCESS_PLATFORM, VERSION_1};

/// Where messages go.
pub(super) const DOORBELL: u64 = 0x0220_0040;
const NO_VECTOR: u16 = 0xffff;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The driver wrote something somewhere.
    Write,
    /// The driver read something.
    Read,
    /// A worker was at work, or came or went.
    Worker,
    /// The device's configuration changed.
    Config,
    /// Queues that drained have stopped.
    Finish,
    /// The function is another one, made from the state.
    Restored,
    /// Nothing that may change anything.
    Nothing,
}

/// Where the capabilities are, as found once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) msix: usize,
    pub(super) window: usize,
    pub(super) table: u64,
}

impl Places {
    /// From the list of capabilities.
    pub(super) fn of(config: &[u8]) -> Self {
        let mut places = Places { msix: 0, window: 0, table: 0 };
        let mut at = usize::from(config[0x34]);
        while at != 0 {
            match (config[at], config[at + 3]) {
                (0x11, _) => {
                    places.msix = at;
                    places.table = u64::from(config[at + 4] & !7) | u64::from(config[at + 5]) << 8;
                }
                (0x09, 5) => places.window = at,
                _ => {}
            }
            at = usize::from(config[at + 1]);
        }
        places
    }
}

/// Checks the step from `old` to the state that `function` is in now, with the messages that were sent
/// meanwhile.
pub(super) fn check(
    old: &PciState,
    function: &PciTransport<BlockDevice>,
    places: Places,
    event: Event,
    sent: &[u32],
) {
    let new = &function.state();
    match event {
        Event::Nothing => assert_eq!(old, new, "a look changed something"),
        Event::Read => assert_eq!(read_off(old, places), read_off(new, places), "a read"),
        _ => {}
    }
    check_config(old, new, places);
    check_status(old, new, event);
    check_features(new, function);
    check_vectors(old, new, places, sent);
    if let Some(bar) = function.bar() {
        let len = function.bar_len();
        assert!(bar.start % len == 0 && bar.end == bar.start + len && bar.end <= 1 << 32);
    }
}

/// The state without what a read may change: the ISR status, and the window's data.
fn read_off(state: &PciState, places: Places) -> PciState {
    let mut state = state.clone();
    state.control.interrupt_status = 0;
    state.config_space[places.window + 16..places.window + 20].fill(0);
    state
}

/// Only these bits of the configuration space ever change.
fn check_config(old: &PciState, new: &PciState, places: Places) {
    let bytes = old.config_space.iter().zip(&new.config_space);
    for (at, (before, after)) in bytes.enumerate() {
        let window = (4..5).chain(8..20).any(|field| places.window + field == at);
        let writable = match at {
            0x04 => 0x46,
            0x05 => 0x05,
            0x11 => 0xc0,
            0x12 | 0x13 | 0x3c => 0xff,
            _ if window => 0xff,
            _ if at == places.msix + 3 => 0xc0,
            _ => 0,
        };
        assert_eq!((before ^ after) & !writable, 0, "{at:#x} of the configuration space");
    }
}

fn check_status(old: &PciState, new: &PciState, event: Event) {
    let (before, after) = (old.control.status, new.control.status);
    let (gained, lost) = (after.difference(before), before.difference(after));
    if !lost.is_empty() {
        assert!(matches!(event, Event::Write | Event::Finish), "{event:?} cleared the status");
        assert_eq!(after, Status::empty(), "a reset left something");
    }
    let needs_reset = Status::DEVICE_NEEDS_RESET;
    if gained.contains(needs_reset) {
        assert_eq!(event, Event::Worker, "DEVICE_NEEDS_RESET");
    }
    if !gained.difference(needs_reset).is_empty() {
        assert_eq!(event, Event::Write, "{gained:?}");
        assert!(!old.control.reset_pending && !before.contains(Status::FAILED));
    }
    let after_driver = Status::FEATURES_OK | Status::DRIVER_OK;
    assert!(after.contains(Status::DRIVER) || !after.intersects(after_driver), "{after:?}");
}

fn check_features(new: &PciState, function: &PciTransport<BlockDevice>) {
    let (features, offered) = (function.features(), function.device_features());
    assert_eq!(features & !offered, 0, "features that nobody offered");
    if new.control.status.contains(Status::FEATURES_OK) {
        let required = VERSION_1 | offered & ACCESS_PLATFORM;
        assert_eq!(features & required, required, "features that nobody can do without");
    }
}

/// Whether vectors that aren't masked themselves may send.
fn sends(state: &PciState, places: Places) -> bool {
    let (control, command) = (state.config_space[places.msix + 3], state.config_space[4]);
    control & 0xc0 == 0x80 && command & 4 != 0
}

fn check_vectors(old: &PciState, new: &PciState, places: Places, sent: &[u32]) {
    assert_eq!(old.vectors.len(), new.vectors.len());
    let exists = |vector: u16| usize::from(vector) < new.vectors.len() || vector == NO_VECTOR;
    let events = || new.queue_vectors.iter().chain([&new.config_vector]);
    assert!(events().all(|vector| exists(*vector)), "a vector that is not there");
    if new.control.reset_pending {
        assert!(events().all(|vector| *vector == NO_VECTOR), "a vector while a reset is under way");
    }
    let may_send = |state: &PciState, vector: &VectorState| sends(state, places) && !vector.masked;
    for vector in &new.vectors {
        assert!(!(vector.pending && may_send(new, vector)), "pending, and not masked");
    }
    for data in sent {
        let sender = |state: &PciState| {
            let vectors = state.vectors.iter();
            vectors
                .filter(|vector| (vector.address, vector.data) == (DOORBELL, *data))
                .any(|vector| may_send(state, vector))
        };
        assert!(sender(old) || sender(new), "message {data} of a vector that may not send");
    }
    let isr_gained = new.control.interrupt_status & !old.control.interrupt_status;
    let enabled = old.config_space[places.msix + 3] & 0x80 != 0;
    assert!(isr_gained & 1 == 0 || !enabled, "the queues' bit with messages");
}

/// An event of the queue happened: its message was sent, or is pending.
pub(super) fn check_event(state: &PciState, places: Places, sent: &[u32]) {
    let Some(vector) = state.vectors.get(usize::from(state.queue_vectors[0])) else { return };
    if state.config_space[places.msix + 3] & 0x80 == 0 {
        assert_ne!(state.control.interrupt_status & 1, 0, "neither a message nor the ISR status");
    } else if vector.masked || !sends(state, places) {
        assert!(vector.pending, "an event is lost");
    } else if vector.address == DOORBELL {
        assert!(sent.contains(&vector.data), "an event is lost");
    }
}
