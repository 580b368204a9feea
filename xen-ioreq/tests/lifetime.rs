//! How a server ends, and that it leaves nothing behind.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{BASE, guest, new_server, serve, server};
use xen_evtchn::{EventChannel, fake::Call as EvtchnCall};
use xen_foreignmem::ForeignMemory;
use xen_ioreq::fake::{Call, FakeDomain, Fault};
use xen_ioreq::{DeviceModel, Error, IoreqServer, ServerId};

fn assert_nothing_left(domain: &FakeDomain) {
    assert_eq!(domain.servers(), 0);
    assert_eq!(domain.foreign_memory().live_mappings(), 0);
    assert!(domain.hub().local_ports().is_empty());
    assert_eq!(domain.eventfds(), 0);
}

#[test]
fn a_server_that_ends_answers_who_waits() {
    let domain = guest(2);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let vcpus: Vec<_> = (0..2)
        .map(|n| {
            let vcpu = domain.vcpu(n);
            thread::spawn(move || vcpu.read(BASE, 4))
        })
        .collect();
    let start = Instant::now();
    while domain.waiting_vcpus() < 2 && start.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    drop(server);
    for vcpu in vcpus {
        assert_eq!(vcpu.join().unwrap(), Ok(0xffff_ffff));
    }
    assert_eq!(domain.hung_vcpus(), [0_u32; 0]);
    assert_nothing_left(&domain);
}

#[test]
fn a_forgotten_request_is_answered_when_the_server_ends() {
    let domain = guest(1);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    std::mem::forget(server.next_request().unwrap());
    let ends = thread::spawn(move || drop(server));
    let value = access.wait();
    ends.join().unwrap();
    assert_eq!(value, Ok(0xffff_ffff));
}

/// A server whose process is killed: the kernel closes its event channels, and the server stays.
fn kill(mut server: common::Server) -> ServerId {
    server.leave_on_drop(true);
    server.id()
}

fn take_over(domain: &FakeDomain, id: ServerId) -> Result<common::Server, Error> {
    let (model, memory) = (domain.device_model(), domain.foreign_memory());
    IoreqServer::take_over(model, memory, domain.event_channel().unwrap(), id)
}

#[test]
fn who_waits_for_a_process_that_was_killed_is_answered_by_the_one_that_takes_its_server_over() {
    let domain = guest(3);
    let mut server = server(&domain);
    serve(&mut server, |_| 0);
    let begin = |vcpu| domain.vcpu(vcpu).begin_read(BASE, 4).unwrap();
    // One request was taken, and one not; the third comes when nobody is there.
    let taken = begin(0);
    std::mem::forget(server.next_request().unwrap());
    let waiting = begin(1);
    let id = kill(server);
    let late = begin(2);
    let mut server = take_over(&domain, id).unwrap();
    serve(&mut server, |_| 7);
    assert_eq!([taken, waiting, late].map(|access| access.wait()), [Ok(7), Ok(7), Ok(7)]);
    let access = begin(0);
    serve(&mut server, |_| 8);
    assert_eq!(access.wait(), Ok(8));
    assert_eq!((server.id(), domain.servers()), (id, 1));
    drop(server);
    assert_eq!((domain.servers(), domain.hung_vcpus()), (0, vec![]));
}

#[test]
fn a_server_that_was_taken_over_answers_who_waits_when_it_is_dropped() {
    let domain = guest(1);
    let server = server(&domain);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let id = kill(server);
    let server = take_over(&domain, id).unwrap();
    let ends = thread::spawn(move || drop(server));
    assert_eq!(access.wait(), Ok(0xffff_ffff));
    ends.join().unwrap();
    assert_eq!((domain.servers(), domain.hung_vcpus()), (0, vec![]));
}

#[test]
fn a_vcpu_that_was_answered_and_not_told_by_a_process_that_was_killed_is_told_by_the_next() {
    let domain = guest(1);
    let mut server = server(&domain);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    domain.hub().fail_next(EvtchnCall::Notify, 1, libc::EINVAL);
    server.next_request().unwrap().unwrap().complete_read(7);
    let id = kill(server);
    let _server = take_over(&domain, id).unwrap();
    assert_eq!(access.wait(), Ok(7));
}

#[test]
fn a_server_that_was_not_enabled_when_its_process_was_killed_can_be_taken_over() {
    let domain = guest(2);
    let id = kill(new_server(&domain));
    let mut server = take_over(&domain, id).unwrap();
    server.map_range(BASE..=BASE + 3).unwrap();
    server.enable().unwrap();
    assert_eq!(domain.vcpu(1).read_with(BASE, 4, || serve(&mut server, |_| 7)), Ok(7));
}

#[test]
fn a_server_that_another_process_uses_is_left_alone() {
    let domain = guest(1);
    let mut server = server(&domain);
    let error = take_over(&domain, server.id()).unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error}");
    assert_eq!(domain.servers(), 1);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    serve(&mut server, |_| 5);
    assert_eq!(access.wait(), Ok(5));
    drop(server);
    let gone = take_over(&domain, 0).unwrap_err();
    assert!(matches!(gone, Error::Page { .. }), "{gone}");
    assert_nothing_left(&domain);
}

#[test]
fn a_vcpu_that_runs_late_still_gets_its_last_answer() {
    let domain = guest(1);
    let server = server(&domain);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let ends = thread::spawn(move || drop(server));
    // As on a host whose processors have other work.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(access.wait(), Ok(0xffff_ffff));
    ends.join().unwrap();
    assert_nothing_left(&domain);
}

#[test]
fn a_vcpu_of_a_paused_guest_gets_its_last_answer_when_it_runs_again() {
    let domain = guest(1);
    let server = server(&domain);
    let access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    drop(server);
    assert_eq!(domain.hung_vcpus(), [0_u32; 0]);
    assert_eq!(access.wait(), Ok(0xffff_ffff));
    assert_eq!(domain.vcpu(0).read(BASE, 4), Err(Fault::Abort), "nobody is asked any more");
}

#[test]
fn the_vcpus_of_a_guest_that_goes_are_not_waited_for() {
    let domain = guest(1);
    let server = server(&domain);
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let started = Instant::now();
    let ends = thread::spawn(move || drop(server));
    thread::sleep(Duration::from_millis(100));
    domain.destroy();
    ends.join().unwrap();
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!(access.poll(), Some(Err(Fault::Destroyed)));
}

#[test]
fn nothing_is_left_behind() {
    let domain = guest(4);
    drop(server(&domain));
    assert_nothing_left(&domain);
    // Nor when it fails half-way.
    for call in [Call::NrVcpus, Call::Create] {
        domain.fail_next(call, 1, libc::ENOSYS);
        let error = IoreqServer::create(
            domain.device_model(),
            domain.foreign_memory(),
            domain.event_channel().unwrap(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("CONFIG_IOREQ_SERVER") && error.contains("domain 1"), "{error}");
        assert_nothing_left(&domain);
    }
    domain.foreign_memory().map_faults().fail_nth(0, libc::ENOMEM);
    let error = IoreqServer::create(
        domain.device_model(),
        domain.foreign_memory(),
        domain.event_channel().unwrap(),
    );
    assert!(matches!(error, Err(Error::Page { id: 0, .. })));
    assert_nothing_left(&domain);

    let mut server = new_server(&domain);
    domain.fail_next(Call::SetState, 1, libc::EPERM);
    let error = server.enable().unwrap_err().to_string();
    assert!(error.contains("not privileged"), "{error}");
    domain.hub().fail_next(EvtchnCall::Bind, 1, libc::ENOSPC);
    assert!(matches!(server.enable(), Err(Error::Bind { vcpu: 0, .. })));
    assert!(domain.hub().local_ports().is_empty());
    server.map_range(BASE..=BASE + 3).unwrap();
    assert_eq!(domain.vcpu(0).read(BASE, 4), Err(Fault::Abort), "not enabled");
    server.enable().unwrap();
    drop(server);
    assert_nothing_left(&domain);
}

#[test]
fn a_guest_that_is_gone_is_no_trouble() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let request = server.next_request().unwrap().unwrap();
    domain.destroy();
    assert_eq!(access.poll(), Some(Err(Fault::Destroyed)));
    request.complete_read(1);
    assert!(server.next_request().unwrap().is_none());
    let error = server.map_range(0..=1).unwrap_err().to_string();
    assert!(error.contains("being destroyed"), "{error}");
    let started = Instant::now();
    drop(server);
    assert!(started.elapsed() < Duration::from_millis(80), "nobody is waited for");
    assert_nothing_left(&domain);
    let gone = domain.device_model().nr_vcpus().unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn a_guest_that_is_being_destroyed_is_told_from_a_living_one_while_its_pages_are_held() {
    let domain = guest(2);
    let server = server(&domain);
    let (liveness, model) = (server.liveness(), domain.device_model());
    assert!(liveness.is_alive().unwrap());
    let page = domain.foreign_memory().map(xen_foreignmem::Prot::READ, &[0x4_0000]).unwrap();
    let (events, port) = (domain.event_channel().unwrap(), domain.hub().alloc_unbound(1));
    let bind = || events.bind_interdomain(1, port).unwrap_err().raw_os_error();
    domain.destroy();
    assert_eq!(model.nr_vcpus().unwrap(), 2, "Xen still knows the domain");
    assert_eq!(bind(), Some(libc::EINVAL), "but its ports are closed");
    assert!(!liveness.clone().is_alive().unwrap());
    drop(server);
    assert_eq!(model.nr_vcpus().unwrap(), 2, "a page of its RAM is mapped");
    drop(page);
    assert_eq!(model.nr_vcpus().unwrap_err().raw_os_error(), Some(libc::ESRCH));
    assert_eq!(bind(), Some(libc::ESRCH));
    assert!(!liveness.is_alive().unwrap());
}

#[test]
fn a_question_that_could_not_be_asked_says_nothing_of_the_guest() {
    let domain = guest(1);
    let server = server(&domain);
    domain.fail_next(Call::Info, 1, libc::ENOMEM);
    let error = server.liveness().is_alive().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    assert!(server.liveness().is_alive().unwrap());
}

#[test]
fn a_deferred_request_is_answered_later_and_holds_up_no_other_vcpu() {
    let domain = guest(2);
    let mut server = server(&domain);
    let mut first = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let request = server.next_request().unwrap().unwrap();
    let deferred = request.defer();
    assert_eq!(deferred.vcpu(), 0);
    for value in 1..4 {
        // It isn't handed out again meanwhile.
        let mut other = domain.vcpu(1).begin_read(BASE + 4, 4).unwrap();
        serve(&mut server, |_| value);
        assert_eq!(other.poll(), Some(Ok(value)));
        assert_eq!(first.poll(), None);
    }
    thread::spawn(move || deferred.complete_read(7)).join().unwrap();
    assert_eq!(first.poll(), Some(Ok(7)));
    // And its vCPU goes on as before.
    let mut next = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    serve(&mut server, |_| 9);
    assert_eq!(next.poll(), Some(Ok(9)));
}

#[test]
fn a_server_that_ends_answers_what_was_deferred_and_whoever_kept_it_does_no_more() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let deferred = server.next_request().unwrap().unwrap().defer();
    let ends = thread::spawn(move || drop(server));
    let start = Instant::now();
    let value = loop {
        match access.poll() {
            Some(value) => break value,
            None => assert!(start.elapsed() < Duration::from_secs(10), "nobody answers"),
        }
        thread::yield_now();
    };
    assert_eq!(value, Ok(0xffff_ffff));
    ends.join().unwrap();
    deferred.complete_read(3);
    assert_eq!(domain.hung_vcpus(), [0_u32; 0]);
    assert_nothing_left(&domain);
}

#[test]
fn a_deferred_request_that_is_dropped_is_answered() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_write(BASE, 4, 1).unwrap();
    drop(server.next_request().unwrap().unwrap().defer());
    assert!(access.poll().is_some_and(|result| result.is_ok()));
}
