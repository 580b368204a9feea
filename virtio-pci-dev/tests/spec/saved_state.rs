//! The saved state, and transports made from it.

use virtio_pci_dev::{Error, PciState, PciTransport};

use crate::V1;
use crate::common::{Call, Guest, Messages, TestDevice, common};

fn restored(state: &PciState) -> Result<Guest, Error> {
    let messages = Messages::default();
    let builder = PciTransport::builder(TestDevice::default(), messages.clone());
    Ok(Guest::with(builder.restore(state)?, messages))
}

#[test]
fn a_saved_state_goes_on_where_it_was() {
    let mut guest = Guest::live(V1);
    guest.mask(0, true);
    guest.transport.config_changed();
    let state = guest.transport.state();
    let mut copy = restored(&state).unwrap();
    assert_eq!(copy.transport.state(), state);
    assert_eq!(copy.transport.bar(), guest.transport.bar());
    copy.transport.resume(&mut copy.queues);
    assert_eq!(copy.queues.calls, [Call::Start(0)]);
    assert_eq!(copy.messages.take(), [101], "which may not have been sent");
    assert_eq!(copy.pending_bits(), 1);
    copy.mask(0, false);
    assert_eq!(copy.messages.take(), [100]);
    copy.transport.interrupt(0).used_buffer();
    assert_eq!(copy.messages.take(), [101]);
}

#[test]
fn each_queue_and_the_configuration_send_a_message_as_the_last_may_not_have_been_sent() {
    let guest = Guest::live(V1);
    let mut copy = restored(&guest.transport.state()).unwrap();
    copy.messages.none("not before the queues are in service");
    copy.transport.resume(&mut copy.queues);
    assert_eq!(copy.messages.take(), [101, 100]);
}

#[test]
fn a_pending_message_that_is_not_masked_is_sent() {
    let guest = Guest::live(V1);
    let mut state = guest.transport.state();
    state.vectors[1].pending = true;
    let mut copy = restored(&state).unwrap();
    assert_eq!((copy.messages.take(), copy.pending_bits()), (vec![101], 0));
}

#[test]
fn a_transport_that_was_not_live_sends_nothing_when_it_resumes() {
    let mut guest = Guest::placed(TestDevice::default());
    guest.enable_messages();
    guest.set(common::CONFIG_MSIX_VECTOR, 0_u16);
    let mut copy = restored(&guest.transport.state()).unwrap();
    copy.transport.resume(&mut copy.queues);
    assert_eq!((copy.messages.take(), copy.queues.calls), (vec![], vec![]));
}

#[test]
fn a_saved_state_of_another_function_is_refused() {
    let state = Guest::live(V1).transport.state();
    let refused = |change: &dyn Fn(&mut PciState)| {
        let mut other = state.clone();
        change(&mut other);
        restored(&other).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|state| state.config_space[2] ^= 1), "another device ID");
    assert!(refused(&|state| state.config_space[0x10] ^= 0x10), "an address in the BAR's size");
    assert!(!refused(&|state| state.config_space[0x13] ^= 0x10), "another address");
    assert!(refused(&|state| state.config_space.truncate(255)));
    assert!(refused(&|state| state.vectors.truncate(2)));
    assert!(refused(&|state| state.queue_vectors.push(0)));
    assert!(refused(&|state| state.control.queues.truncate(1)));
    // As of a driver's write.
    let mut other = state.clone();
    (other.config_vector, other.queue_vectors[1]) = (3, 9);
    let copy = restored(&other).unwrap().transport.state();
    assert_eq!((copy.config_vector, copy.queue_vectors[1]), (0xffff, 0xffff));
}
