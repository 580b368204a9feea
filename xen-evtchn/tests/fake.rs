//! The fake fails as the kernel does, and a `Port` unbinds itself.
#![cfg(all(feature = "test-utils", not(miri)))] // Miri does not know poll(2)

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use xen_evtchn::fake::{Call, FakeEvtchn, FakeHub};
use xen_evtchn::{Error, EventChannel, Port};

const GUEST: u16 = 3;

fn code<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().expect("an errno")
}

fn readable(channel: &FakeEvtchn) -> bool {
    let mut poll =
        libc::pollfd { fd: channel.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one pollfd, and outlives the call.
    let n = unsafe { libc::poll(&mut poll, 1, 0) };
    assert!(n >= 0);
    poll.revents & libc::POLLIN != 0
}

fn take(channel: &FakeEvtchn) -> Vec<u32> {
    let mut ports = [0; 64];
    match channel.pending(&mut ports) {
        Ok(n) => ports[..n].to_vec(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// A bound port whose first, spurious event has been taken and unmasked.
fn bound(hub: &FakeHub, channel: &FakeEvtchn) -> (u32, u32) {
    let remote = hub.alloc_unbound(GUEST);
    let local = channel.bind_interdomain(GUEST, remote).unwrap();
    assert_eq!(take(channel), [local]);
    channel.unmask(&[local]).unwrap();
    (local, remote)
}

#[test]
fn binding_fails_as_xen_does() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    assert_eq!(code(channel.bind_interdomain(GUEST, 1)), libc::ESRCH);
    hub.create_domain(GUEST);
    assert_eq!(code(channel.bind_interdomain(GUEST, 1)), libc::EINVAL);
    let remote = hub.alloc_unbound(GUEST);
    channel.bind_interdomain(GUEST, remote).unwrap();
    assert_eq!(code(channel.bind_interdomain(GUEST, remote)), libc::EINVAL);
    hub.close(GUEST, remote).unwrap();
    assert_eq!(code(channel.bind_interdomain(GUEST, remote)), libc::EINVAL);
    assert_eq!(code(hub.raise(GUEST, remote)), libc::EINVAL);
}

#[test]
fn a_fresh_bind_is_pending() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    assert!(!readable(&channel));
    let local = channel.bind_interdomain(GUEST, hub.alloc_unbound(GUEST)).unwrap();
    assert!(readable(&channel));
    assert_eq!(take(&channel), [local]);
    assert!(!readable(&channel));
}

#[test]
fn a_pending_port_is_masked_until_unmasked_and_remembers_one_event() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    hub.raise(GUEST, remote).unwrap();
    assert_eq!(take(&channel), [local]);
    for _ in 0..3 {
        hub.raise(GUEST, remote).unwrap();
    }
    assert!(!readable(&channel));
    assert_eq!(take(&channel), []);
    channel.unmask(&[local]).unwrap();
    assert!(readable(&channel));
    assert_eq!(take(&channel), [local]);
    channel.unmask(&[local]).unwrap();
    assert_eq!(take(&channel), []);
}

#[test]
fn pending_takes_a_batch_in_order() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let ports: Vec<_> = (0..5).map(|_| bound(&hub, &channel)).collect();
    for (_, remote) in &ports {
        hub.raise(GUEST, *remote).unwrap();
    }
    let mut batch = [0; 3];
    assert_eq!(channel.pending(&mut []).unwrap(), 0);
    assert_eq!(channel.pending(&mut batch).unwrap(), 3);
    assert_eq!(batch, [ports[0].0, ports[1].0, ports[2].0]);
    assert!(readable(&channel));
    assert_eq!(channel.pending(&mut batch).unwrap(), 2);
    assert!(!readable(&channel));
}

#[test]
fn a_port_belongs_to_the_descriptor_that_bound_it() {
    let hub = FakeHub::new();
    let (ours, other) = (hub.open().unwrap(), hub.open().unwrap());
    let (local, remote) = bound(&hub, &ours);
    assert_eq!(code(other.notify(local)), libc::ENOTCONN);
    assert_eq!(code(other.unbind(local)), libc::ENOTCONN);
    hub.raise(GUEST, remote).unwrap();
    assert_eq!(take(&other), []);
    assert_eq!(take(&ours), [local]);
    hub.raise(GUEST, remote).unwrap();
    other.unmask(&[local, 9999]).unwrap(); // ignored, as the driver does
    assert_eq!(take(&ours), []);
    ours.unbind(local).unwrap();
    assert_eq!(code(ours.unbind(local)), libc::ENOTCONN);
    assert_eq!(code(ours.notify(local)), libc::ENOTCONN);
}

#[test]
fn notify_reaches_the_remote_end_and_is_dropped_when_it_is_gone() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    assert!(!hub.wait_notified(GUEST, remote, Duration::from_millis(1)));
    channel.notify(local).unwrap();
    channel.notify(local).unwrap();
    assert!(hub.wait_notified(GUEST, remote, Duration::ZERO));
    assert!(!hub.take_notified(GUEST, remote));
    assert_eq!(hub.notifications(GUEST, remote), 2);
    hub.destroy_domain(GUEST);
    channel.notify(local).unwrap();
    assert_eq!(code(channel.bind_interdomain(GUEST, remote)), libc::ESRCH);
}

#[test]
fn a_closed_port_is_not_the_one_that_takes_its_number() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (stale, remote) = bound(&hub, &channel);
    hub.close(GUEST, remote).unwrap();
    assert_eq!(hub.alloc_unbound(GUEST), remote);
    channel.notify(stale).unwrap();
    assert!(!hub.take_notified(GUEST, remote));
    let fresh = channel.bind_interdomain(GUEST, remote).unwrap();
    assert_eq!(take(&channel), [fresh]);
    channel.unbind(stale).unwrap();
    assert_eq!(hub.bound_to(GUEST, remote), Some(fresh));
}

#[test]
fn a_waiting_guest_is_woken() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| hub.wait_notified(GUEST, remote, Duration::from_secs(60)));
        channel.notify(local).unwrap();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn dropping_the_descriptor_unbinds_its_ports_and_they_can_be_bound_again() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (_, remote) = bound(&hub, &channel);
    drop(channel);
    assert_eq!(hub.local_ports(), []);
    assert_eq!(hub.bound_to(GUEST, remote), None);
    hub.raise(GUEST, remote).unwrap();
    let again = hub.open().unwrap();
    let local = again.bind_interdomain(GUEST, remote).unwrap();
    assert_eq!(take(&again), [local]);
}

#[test]
fn an_unbound_port_may_still_be_reported() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    hub.raise(GUEST, remote).unwrap();
    channel.unbind(local).unwrap();
    assert_eq!(take(&channel), [local]);
}

#[test]
fn restrict_allows_one_domain_once() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, _) = bound(&hub, &channel);
    for domid in [0, 0x7ff0, 0x7fff] {
        assert_eq!(code(channel.restrict(domid)), libc::EINVAL);
    }
    channel.restrict(GUEST).unwrap();
    assert_eq!(code(channel.restrict(GUEST)), libc::EACCES);
    assert_eq!(code(channel.bind_interdomain(4, hub.alloc_unbound(4))), libc::EACCES);
    channel.bind_interdomain(GUEST, hub.alloc_unbound(GUEST)).unwrap();
    channel.notify(local).unwrap();
}

#[test]
fn an_overflow_lasts_until_reset_and_leaves_the_ports_masked() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    hub.overflow();
    assert!(readable(&channel));
    hub.raise(GUEST, remote).unwrap();
    assert_eq!(code(channel.pending(&mut [0])), libc::EFBIG);
    channel.reset().unwrap();
    assert!(!readable(&channel));
    hub.raise(GUEST, remote).unwrap();
    assert_eq!(take(&channel), []);
    channel.unmask(&[local]).unwrap();
    assert_eq!(take(&channel), [local]);
}

#[test]
fn injected_faults_hit_their_call_only_and_run_out() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    hub.fail_next(Call::Notify, 2, libc::EIO);
    hub.fail_next(Call::Notify, 1, libc::ENOMEM);
    hub.fail_next(Call::Bind, 1, libc::ENOSPC);
    channel.unmask(&[local]).unwrap();
    assert_eq!(code(channel.notify(local)), libc::EIO);
    assert_eq!(code(channel.notify(local)), libc::EIO);
    assert_eq!(code(channel.notify(local)), libc::ENOMEM);
    assert_eq!(hub.notifications(GUEST, remote), 0);
    channel.notify(local).unwrap();
    let fresh = hub.alloc_unbound(GUEST);
    assert_eq!(code(channel.bind_interdomain(GUEST, fresh)), libc::ENOSPC);
    channel.bind_interdomain(GUEST, fresh).unwrap();
    for call in [Call::Unbind, Call::Pending, Call::Unmask, Call::Reset, Call::Restrict] {
        hub.fail_next(call, 1, libc::EINTR);
    }
    assert_eq!(code(channel.unbind(local)), libc::EINTR);
    assert_eq!(code(channel.pending(&mut [0])), libc::EINTR);
    assert_eq!(code(channel.unmask(&[local])), libc::EINTR);
    assert_eq!(code(channel.reset()), libc::EINTR);
    assert_eq!(code(channel.restrict(GUEST)), libc::EINTR);
}

#[test]
fn a_port_is_unbound_once_when_dropped() {
    let hub = FakeHub::new();
    let channel = Arc::new(hub.open().unwrap());
    let remote = hub.alloc_unbound(GUEST);
    let port = Port::bind_interdomain(&channel, GUEST, remote).unwrap();
    assert_eq!(hub.bound_to(GUEST, remote), Some(port.number()));
    assert_eq!(take(&channel), [port.number()]);
    hub.raise(GUEST, remote).unwrap();
    assert_eq!(take(&channel), []);
    port.unmask().unwrap();
    assert_eq!(take(&channel), [port.number()]);
    port.notify().unwrap();
    assert!(hub.take_notified(GUEST, remote));
    drop(port);
    assert_eq!(hub.local_ports(), []);
    // The number is free again and may be someone else's: a second unbind would be theirs to suffer.
    let next = Port::bind_interdomain(&channel, GUEST, remote).unwrap();
    assert_eq!(hub.local_ports(), [next.number()]);
}

#[test]
fn a_failed_bind_names_the_domain_and_the_port() {
    let hub = FakeHub::new();
    hub.create_domain(GUEST);
    let error = Port::bind_interdomain(&Arc::new(hub.open().unwrap()), GUEST, 17).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "cannot bind event channel 17 of domain 3");
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<Error>()).unwrap();
    let Error::Bind { source, .. } = inner else { panic!("{inner:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::EINVAL));
}

#[test]
fn the_ports_of_a_dying_domain_are_invalid_and_those_of_one_that_is_gone_nobodys() {
    let hub = FakeHub::new();
    let channel = hub.open().unwrap();
    let (local, remote) = bound(&hub, &channel);
    let held = Arc::new(AtomicBool::new(true));
    let pages = Arc::clone(&held);
    hub.kill_domain(GUEST, move || pages.load(Ordering::Relaxed));
    assert_eq!(code(channel.bind_interdomain(GUEST, remote)), libc::EINVAL);
    channel.notify(local).unwrap(); // nobody hears it, as after a close of the other end
    held.store(false, Ordering::Relaxed);
    assert_eq!(code(channel.bind_interdomain(GUEST, remote)), libc::ESRCH);
    channel.unbind(local).unwrap();
    hub.create_domain(GUEST);
    channel.bind_interdomain(GUEST, hub.alloc_unbound(GUEST)).unwrap();
}
