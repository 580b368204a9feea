//! `IoreqServer` as its users and the guest see it, on the fake.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{BASE, guest, hasty_guest, new_server, poll, run, serve, server};
use xen_evtchn::Loopback;
use xen_evtchn::fake::Call as EvtchnCall;
use xen_ioreq::fake::{FakeDomain, Fault};
use xen_ioreq::{Error, IoreqServer, RequestKind};

#[test]
fn a_read_and_a_write_reach_the_server() {
    let domain = guest(1);
    let mut server = server(&domain);
    let vcpu = domain.vcpu(0);

    let value = vcpu.read_with(BASE + 4, 4, || {
        let request = server.next_request().unwrap().unwrap();
        assert_eq!(request.kind(), RequestKind::Read { addr: BASE + 4, size: 4 });
        assert_eq!(request.vcpu(), 0);
        request.complete_read(0x1_7472_6976);
    });
    // Cut to the size of the access.
    assert_eq!(value, Ok(0x7472_6976));

    let written = vcpu.write_with(BASE + 0x50, 2, 0xdead_beef, || {
        let request = server.next_request().unwrap().unwrap();
        // The fake sends the whole register, as Arm does.
        let kind = RequestKind::Write { addr: BASE + 0x50, size: 2, data: 0xbeef };
        assert_eq!(request.kind(), kind);
        request.complete();
    });
    assert_eq!(written, Ok(()));
    assert_eq!(server.stats().requests, 2);
}

#[test]
fn every_size_is_masked() {
    let domain = guest(1);
    let mut server = server(&domain);
    for (size, mask) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff), (8, u64::MAX)] {
        let value = domain.vcpu(0).read_with(BASE, size, || serve(&mut server, |_| u64::MAX - 1));
        assert_eq!(value, Ok((u64::MAX - 1) & mask));
        let mut seen = None;
        let written = domain.vcpu(0).write_with(BASE, size, u64::MAX, || {
            while let Some(request) = server.next_request().unwrap() {
                seen = Some(request.kind());
            }
        });
        written.unwrap();
        assert_eq!(seen, Some(RequestKind::Write { addr: BASE, size, data: mask }));
    }
}

#[test]
fn a_dropped_request_is_answered_with_all_ones() {
    let domain = guest(1);
    let mut server = server(&domain);
    let value = domain.vcpu(0).read_with(BASE, 4, || drop(server.next_request().unwrap()));
    assert_eq!(value, Ok(0xffff_ffff));
    let written = domain.vcpu(0).write_with(BASE, 4, 1, || drop(server.next_request().unwrap()));
    assert_eq!(written, Ok(()));
}

#[test]
fn an_early_return_in_a_handler_answers() {
    fn handler(server: &mut common::Server) -> Result<(), std::num::ParseIntError> {
        let Some(request) = server.next_request().unwrap() else { return Ok(()) };
        let value = "no number".parse()?;
        request.complete_read(value);
        Ok(())
    }
    let domain = guest(1);
    let mut server = server(&domain);
    let value = domain.vcpu(0).read_with(BASE, 1, || {
        let _ = handler(&mut server);
    });
    assert_eq!(value, Ok(0xff));
}

#[test]
fn a_panic_in_a_handler_answers() {
    let domain = guest(1);
    let mut server = server(&domain);
    let value = domain.vcpu(0).read_with(BASE, 8, || {
        let handler = || {
            if let Some(_request) = server.next_request().unwrap() {
                std::panic::resume_unwind(Box::new("a bug in a device"));
            }
        };
        let _ = catch_unwind(AssertUnwindSafe(handler));
    });
    assert_eq!(value, Ok(u64::MAX));
    // And the server goes on.
    let value = domain.vcpu(0).read_with(BASE, 4, || serve(&mut server, |_| 7));
    assert_eq!(value, Ok(7));
}

#[test]
fn an_invalidate_is_one_whatever_its_other_fields_say() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut seen = Vec::new();
    let done = domain.vcpu(0).invalidate_with(|| {
        while let Some(request) = server.next_request().unwrap() {
            seen.push(request.kind());
        }
    });
    assert_eq!(done, Ok(()));
    assert_eq!(seen, [RequestKind::Invalidate]);
}

#[test]
fn an_invalidate_waits_for_every_server() {
    let domain = hasty_guest(1);
    let mut first = server(&domain);
    let mut second = new_server(&domain);
    second.enable().unwrap();
    let disabled = new_server(&domain);
    let done = domain.vcpu(0).invalidate_with(|| serve(&mut first, |_| 0));
    assert_eq!(done, Err(Fault::Hung), "the second has not answered");
    serve(&mut second, |_| 0);

    let domain = guest(1);
    let (mut first, mut second) = (server(&domain), new_server(&domain));
    second.enable().unwrap();
    let done = domain.vcpu(0).invalidate_with(|| {
        serve(&mut first, |_| 0);
        serve(&mut second, |_| 0);
    });
    assert_eq!(done, Ok(()));
    assert_eq!(disabled.stats().requests, 0);
}

#[test]
fn ranges_come_and_go_before_and_after_enabling() {
    let domain = guest(1);
    let mut server = new_server(&domain);
    let vcpu = domain.vcpu(0);
    server.map_range(BASE..=BASE + 0x1ff).unwrap();
    assert_eq!(vcpu.read(BASE, 4), Err(Fault::Abort), "not enabled");
    server.enable().unwrap();
    server.enable().unwrap();
    server.map_range(BASE + 0x400..=BASE + 0x5ff).unwrap();
    for addr in [BASE, BASE + 0x1fc, BASE + 0x400] {
        assert_eq!(vcpu.read_with(addr, 4, || serve(&mut server, |addr| addr)), Ok(addr));
    }
    for (addr, size) in [(BASE - 2, 4), (BASE + 0x1fe, 4), (BASE + 0x200, 1), (u64::MAX, 8)] {
        assert_eq!(vcpu.read(addr, size), Err(Fault::Abort), "{addr:#x}");
    }
    server.unmap_range(BASE..=BASE + 0x1ff).unwrap();
    assert_eq!(vcpu.read(BASE, 4), Err(Fault::Abort));
    let error = server.unmap_range(BASE..=BASE + 0x1ff).unwrap_err();
    assert!(error.to_string().contains("0x2000000-0x20001ff"), "{error}");
    let error = server.map_range(BASE + 0x5ff..=BASE + 0x7ff).unwrap_err();
    assert!(error.to_string().contains("overlaps"), "{error}");
}

#[test]
fn two_servers_share_a_guest() {
    let domain = guest(2);
    let (mut first, mut second) = (server(&domain), new_server(&domain));
    assert_ne!(first.id(), second.id());
    second.map_range(BASE + 0x200..=BASE + 0x3ff).unwrap();
    second.enable().unwrap();
    let mut step = || {
        serve(&mut first, |_| 1);
        serve(&mut second, |_| 2);
    };
    assert_eq!(domain.vcpu(0).read_with(BASE, 4, &mut step), Ok(1));
    assert_eq!(domain.vcpu(1).read_with(BASE + 0x200, 4, &mut step), Ok(2));
    // The same range twice: the newer wins, so that a server can be replaced.
    let mut third = server(&domain);
    let value = domain.vcpu(0).read_with(BASE, 4, || serve(&mut third, |_| 3));
    assert_eq!(value, Ok(3));
    drop(third);
    assert_eq!(domain.vcpu(0).read_with(BASE, 4, || serve(&mut first, |_| 1)), Ok(1));
}

#[test]
fn a_guest_may_have_128_vcpus() {
    let domain = guest(128);
    let mut server = server(&domain);
    assert_eq!(server.nr_vcpus(), 128);
    let vcpus = (0..128).map(|n| {
        let vcpu = domain.vcpu(n);
        Box::new(move || {
            for _ in 0..4 {
                let addr = BASE + 4 * u64::from(n % 64);
                assert_eq!(vcpu.read(addr, 4), Ok(!addr & 0xffff_ffff));
            }
        }) as Box<dyn FnOnce() + Send>
    });
    run(&mut server, vcpus, |addr| !addr);
    assert_eq!(server.stats().requests, 512);
    assert!(!domain.is_crashed());

    let error = IoreqServer::create(
        guest(129).device_model(),
        domain.foreign_memory(),
        domain.event_channel().unwrap(),
    );
    assert!(matches!(error, Err(Error::TooManyVcpus { vcpus: 129, .. })));
}

#[test]
fn no_event_is_lost_between_threads() {
    let domain = guest(4);
    let mut server = server(&domain);
    let vcpus = (0..4).map(|n| {
        let vcpu = domain.vcpu(n);
        Box::new(move || {
            for i in 0..500 {
                vcpu.write(BASE, 4, i).unwrap();
                assert_eq!(vcpu.read(BASE + 8, 8), Ok(BASE + 8));
            }
        }) as Box<dyn FnOnce() + Send>
    });
    run(&mut server, vcpus, |addr| addr);
    assert_eq!(server.stats().requests, 4000);
    assert!(!domain.is_crashed());
}

#[test]
fn a_quick_vcpu_is_served_before_its_event_is_read() {
    let domain = guest(1);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let mut first = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    server.next_request().unwrap().unwrap().complete_read(1);
    assert_eq!(first.poll(), Some(Ok(1)));
    let mut second = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    // Not even a descriptor that fails keeps it from being found.
    domain.hub().fail_next(EvtchnCall::Pending, 1, libc::EIO);
    server.next_request().unwrap().unwrap().complete_read(2);
    assert_eq!(second.poll(), Some(Ok(2)));
    assert!(server.next_request().unwrap().is_none());
    assert!(server.next_request().is_err());
    assert!(server.next_request().unwrap().is_none());
    assert_eq!(server.stats().spurious, 2, "its event came after");
}

#[test]
fn events_are_not_read_again_when_all_were_taken_until_the_caller_has_slept() {
    let domain = guest(1);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let mut read = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    server.next_request().unwrap().unwrap().complete_read(1);
    assert_eq!(read.poll(), Some(Ok(1)));
    domain.hub().fail_next(EvtchnCall::Pending, 1, libc::EIO);
    assert!(
        server.next_request().unwrap().is_none(),
        "a read would only say that there is nothing"
    );
    assert!(server.next_request().is_err(), "it is read at the next call");
}

#[test]
fn a_sleep_ends_by_a_request_and_by_the_bell_however_often_it_is_rung() {
    let domain = guest(1);
    let events = domain.event_channel().unwrap();
    let bell = Arc::new(Loopback::bind(&events).unwrap());
    let mut server =
        IoreqServer::create(domain.device_model(), domain.foreign_memory(), events).unwrap();
    server.map_range(BASE..=BASE + 0x1ff).unwrap();
    server.enable().unwrap();
    server.set_bell(Arc::clone(&bell));
    // What binding has made pending.
    serve(&mut server, |_| 0);
    for _ in 0..3 {
        bell.ring().unwrap();
        server.wait();
        assert!(server.next_request().unwrap().is_none());
        let mut read = domain.vcpu(0).begin_read(BASE, 4).unwrap();
        server.wait();
        server.next_request().unwrap().unwrap().complete_read(7);
        assert_eq!(read.poll(), Some(Ok(7)));
        assert!(server.next_request().unwrap().is_none());
    }
    // From another thread, before the sleep and during it.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                bell.ring().unwrap();
                thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
            bell.ring().unwrap();
        });
        while !done.load(Ordering::SeqCst) {
            server.wait();
            assert!(server.next_request().unwrap().is_none());
        }
    });
    let spurious = server.stats().spurious;
    assert_eq!(
        spurious, 1,
        "the bell's events are none of a vCPU's; binding the vCPU's port made one"
    );
}

#[test]
fn the_descriptor_is_readable_while_there_is_something() {
    let domain = guest(1);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    assert_eq!(server.stats().spurious, 1, "a fresh channel is pending");
    assert!(!poll(&server, 0));
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    assert!(poll(&server, 0));
    assert_eq!(access.poll(), None);
    serve(&mut server, |_| 5);
    assert_eq!(access.poll(), Some(Ok(5)));
    assert!(!poll(&server, 0));
}

#[test]
fn a_ring_overflow_is_recovered_from() {
    let domain = guest(3);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let mut access = domain.vcpu(2).begin_read(BASE, 4).unwrap();
    domain.hub().overflow();
    serve(&mut server, |_| 9);
    assert_eq!(access.poll(), Some(Ok(9)));
    // The ports are unmasked again.
    assert_eq!(domain.vcpu(2).read_with(BASE, 4, || serve(&mut server, |_| 8)), Ok(8));
    assert!(!poll(&server, 0));
}

#[test]
fn a_forgotten_request_is_handed_out_again() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    std::mem::forget(server.next_request().unwrap());
    server.next_request().unwrap().unwrap().complete_read(4);
    assert_eq!(access.poll(), Some(Ok(4)));
}

#[test]
fn a_vcpu_that_cannot_be_told_is_reported_at_the_next_request() {
    let domain = guest(1);
    let mut server = server(&domain);
    let _access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    domain.hub().fail_next(EvtchnCall::Notify, 1, libc::EINVAL);
    drop(server.next_request().unwrap());
    let error = server.next_request().unwrap_err();
    assert!(matches!(error, Error::Notify { domid: 1, vcpu: 0, .. }), "{error}");
    assert!(server.next_request().unwrap().is_none());
}

#[test]
fn failures_of_the_descriptor_are_named() {
    let domain = guest(1);
    let mut server = server(&domain);
    for (call, action) in [(EvtchnCall::Pending, "read"), (EvtchnCall::Unmask, "unmask")] {
        domain.hub().fail_next(call, 1, libc::EIO);
        let error = server.next_request().unwrap_err();
        assert!(error.to_string().contains(action), "{error}");
    }
    assert!(server.next_request().unwrap().is_none());
    domain.hub().overflow();
    domain.hub().fail_next(EvtchnCall::Reset, 1, libc::EIO);
    assert!(server.next_request().unwrap_err().to_string().contains("reset"));
    // And it recovers.
    assert_eq!(domain.vcpu(0).read_with(BASE, 4, || serve(&mut server, |_| 3)), Ok(3));
}

#[test]
fn handles_of_different_guests_are_refused() {
    let (one, two) = (guest(1), FakeDomain::builder().domid(2).build());
    let error =
        IoreqServer::create(one.device_model(), two.foreign_memory(), one.event_channel().unwrap());
    assert!(matches!(error, Err(Error::DifferentDomains { model: 1, memory: 2 })));
}
