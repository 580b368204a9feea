//! Requests of any shape: each is answered, and none is believed.

mod common;

use common::{BASE, guest, hasty_guest, server};
use proptest::prelude::*;
use xen_ioreq::RequestKind;
use xen_ioreq::fake::{FakeIoreq, Fault};

const READ: FakeIoreq =
    FakeIoreq { addr: BASE, data: 0, count: 1, size: 4, data_is_ptr: false, read: true, kind: 1 };

/// Sends a request as it is; what the server made of it, and the answer.
fn send(request: FakeIoreq) -> (RequestKind, u64) {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_raw(server.id(), request).unwrap();
    let kind = server.next_request().unwrap().unwrap().kind();
    (kind, access.poll().unwrap().unwrap())
}

#[test]
fn odd_sizes_are_unsupported() {
    for size in [0, 3, 5, 16, 256, 0x1_0004, u32::MAX] {
        let answer = send(FakeIoreq { size, ..READ });
        assert_eq!(answer, (RequestKind::Unsupported(1), u64::MAX), "{size}");
    }
}

#[test]
fn repetitions_are_unsupported() {
    for count in [0, 2, u32::MAX] {
        let answer = send(FakeIoreq { count, ..READ });
        assert_eq!(answer, (RequestKind::Unsupported(1), u64::MAX), "{count}");
    }
}

#[test]
fn data_by_pointer_is_unsupported_and_the_pointer_kept() {
    let request = FakeIoreq { data_is_ptr: true, data: 0x4000_0000, ..READ };
    assert_eq!(send(request), (RequestKind::Unsupported(1), 0x4000_0000));
}

#[test]
fn types_that_no_arm_guest_makes_are_unsupported() {
    for kind in [0, 2, 7, 3, 9, 255] {
        let (seen, data) = send(FakeIoreq { kind, ..READ });
        assert_eq!((seen, data), (RequestKind::Unsupported(kind), u64::MAX));
    }
}

#[test]
fn an_access_does_not_wrap() {
    let last = send(FakeIoreq { addr: u64::MAX - 3, ..READ });
    assert_eq!(last.0, RequestKind::Read { addr: u64::MAX - 3, size: 4 });
    let wrapping = send(FakeIoreq { addr: u64::MAX - 2, ..READ });
    assert_eq!(wrapping.0, RequestKind::Unsupported(1));
}

#[test]
fn a_spurious_event_asks_for_nothing() {
    let domain = guest(1);
    let mut server = server(&domain);
    assert!(server.next_request().unwrap().is_none());
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    server.next_request().unwrap().unwrap().complete_read(1);
    assert_eq!(access.poll(), Some(Ok(1)));
    assert!(server.next_request().unwrap().is_none());
    assert_eq!((server.stats().requests, server.stats().spurious), (1, 1));
}

#[test]
fn an_answer_without_a_notification_leaves_the_vcpu_asleep() {
    let domain = hasty_guest(1);
    let mut server = server(&domain);
    domain.hub().fail_next(xen_evtchn::fake::Call::Notify, 1, libc::EINVAL);
    let value = domain.vcpu(0).read_with(BASE, 4, || {
        let _ = server.next_request();
    });
    assert_eq!(value, Err(Fault::Hung));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_answered(
        addr: u64, data: u64, count in prop_oneof![Just(1), any::<u32>()],
        size in prop_oneof![0..17_u32, any::<u32>()], data_is_ptr: bool, read: bool,
        kind in prop_oneof![Just(1), Just(8), any::<u8>()],
    ) {
        let request = FakeIoreq { addr, data, count, size, data_is_ptr, read, kind };
        let (seen, answer) = send(request);
        match seen {
            RequestKind::Read { addr: a, size: s } => {
                prop_assert_eq!((a, u32::from(s)), (addr, size));
                prop_assert_eq!(answer, u64::MAX >> (64 - 8 * u32::from(s)));
            }
            RequestKind::Write { addr: a, size: s, data: d } => {
                prop_assert_eq!((a, u32::from(s)), (addr, size));
                prop_assert_eq!(d, data & (u64::MAX >> (64 - 8 * u32::from(s))));
            }
            RequestKind::Invalidate => prop_assert_eq!(kind, 8),
            RequestKind::Unsupported(k) => prop_assert_eq!(k, kind),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
