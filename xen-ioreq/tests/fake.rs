//! The fake guest is as strict as Xen.

mod common;

use std::sync::atomic::{AtomicU8, Ordering};

use common::{BASE, guest, hasty_guest, new_server, server};
use xen_evtchn::EventChannel;
use xen_foreignmem::vm_memory::VolatileMemory;
use xen_foreignmem::{ForeignMemory, GrantTable, Prot, RESOURCE_IOREQ_SERVER};
use xen_ioreq::DeviceModel;
use xen_ioreq::fake::{Call, FakeDomain, Fault};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn a_guest_has_8_servers_and_reuses_their_numbers() {
    let domain = guest(1);
    let model = domain.device_model();
    let ids: Vec<_> = (0..8).map(|_| model.create_ioreq_server().unwrap()).collect();
    assert_eq!(ids, (0..8).collect::<Vec<_>>());
    assert_eq!(errno(model.create_ioreq_server()), libc::ENOSPC);
    model.destroy_ioreq_server(3).unwrap();
    assert_eq!(errno(model.destroy_ioreq_server(3)), libc::ENOENT);
    assert_eq!(model.create_ioreq_server().unwrap(), 3);
}

#[test]
fn a_server_that_is_not_there_is_enoent() {
    let domain = guest(1);
    let model = domain.device_model();
    for id in [0, 8, u16::MAX] {
        assert_eq!(errno(model.ioreq_server_info(id)), libc::ENOENT);
        assert_eq!(errno(model.map_mmio_range(id, 0..=1)), libc::ENOENT);
        assert_eq!(errno(model.unmap_mmio_range(id, 0..=1)), libc::ENOENT);
        assert_eq!(errno(model.set_ioreq_server_state(id, true)), libc::ENOENT);
        assert_eq!(errno(model.destroy_ioreq_server(id)), libc::ENOENT);
        let page = domain.foreign_memory().map_resource(RESOURCE_IOREQ_SERVER, id.into(), 1, 1);
        assert_eq!(page.unwrap_err().errno(), Some(libc::ENOENT));
    }
    let id = model.create_ioreq_server().unwrap();
    assert_eq!(model.ioreq_server_info(id).unwrap().buffered_port, 0);
}

#[test]
fn ranges_are_refused_as_xen_refuses_them() {
    let domain = guest(1);
    let model = domain.device_model();
    let id = model.create_ioreq_server().unwrap();
    model.map_mmio_range(id, 0x100..=0x1ff).unwrap();
    assert_eq!(errno(model.map_mmio_range(id, 0x1ff..=0x2ff)), libc::EEXIST);
    #[allow(clippy::reversed_empty_ranges)]
    let empty = 2..=1;
    assert_eq!(errno(model.map_mmio_range(id, empty)), libc::EINVAL);
    assert_eq!(errno(model.unmap_mmio_range(id, 0x180..=0x200)), libc::ENOENT);
    // Another server may have the same.
    let other = model.create_ioreq_server().unwrap();
    model.map_mmio_range(other, 0x100..=0x1ff).unwrap();
}

#[test]
fn other_domains_are_refused() {
    let domain = guest(1);
    let other = domain.device_model_for(7);
    assert_eq!(errno(other.nr_vcpus()), libc::ESRCH);
    domain.foreign_memory().restrict().unwrap();
    assert_eq!(errno(other.nr_vcpus()), libc::EPERM);
    assert_eq!(domain.device_model().nr_vcpus().unwrap(), 1);
}

#[test]
fn a_server_destroyed_under_a_vcpu_hangs_it() {
    let domain = guest(2);
    let server = server(&domain);
    let id = server.id();
    let mut access = domain.vcpu(1).begin_read(BASE, 4).unwrap();
    domain.device_model().destroy_ioreq_server(id).unwrap();
    assert_eq!(access.poll(), Some(Err(Fault::Hung)));
    assert_eq!(domain.hung_vcpus(), [1]);
    assert_eq!(domain.vcpu(1).read(BASE, 4), Err(Fault::Hung));
}

#[test]
fn nobody_answers_and_the_vcpu_hangs() {
    let domain = hasty_guest(1);
    let _server = server(&domain);
    assert_eq!(domain.vcpu(0).read(BASE, 4), Err(Fault::Hung));
    assert_eq!(domain.waiting_vcpus(), 1);
    // Its slot is still taken.
    assert_eq!(domain.vcpu(0).read(BASE, 4), Err(Fault::Abort));
}

/// The state byte of vCPU 0's slot, by a mapping of its own.
fn set_state(domain: &FakeDomain, id: u16, state: u8) {
    let foreign = domain.foreign_memory();
    let page = foreign.map_resource(RESOURCE_IOREQ_SERVER, id.into(), 1, 1).unwrap();
    let page = page.as_volatile_slice();
    let byte = page.get_atomic_ref::<AtomicU8>(30).unwrap();
    // Keeps the flags, as a server must.
    let flags = byte.load(Ordering::SeqCst) & 0xf0;
    byte.store(flags | state, Ordering::SeqCst);
}

#[test]
fn a_state_that_goes_down_crashes_the_guest() {
    for (seen, then) in [(1, 0), (2, 1), (2, 0), (2, 4), (1, 15)] {
        let domain = guest(1);
        let server = server(&domain);
        let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
        set_state(&domain, server.id(), seen);
        assert_eq!(access.poll(), None);
        set_state(&domain, server.id(), then);
        assert_eq!(access.poll(), Some(Err(Fault::Crashed)), "{seen} -> {then}");
        assert!(domain.is_crashed());
        assert_eq!(domain.vcpu(0).read(BASE, 4), Err(Fault::Crashed));
    }
}

/// Xen masks too, but nothing that a device did not mean for the guest needs to leave this process.
#[test]
fn a_slot_is_given_no_more_than_the_access_asked_for() {
    let domain = guest(1);
    let mut server = server(&domain);
    let _access = domain.vcpu(0).begin_read(BASE, 2).unwrap();
    server.next_request().unwrap().unwrap().complete_read(u64::MAX);
    let page = domain.foreign_memory().map_resource(RESOURCE_IOREQ_SERVER, 0, 1, 1).unwrap();
    assert_eq!(page.as_volatile_slice().get_ref::<u64>(8).unwrap().load(), 0xffff);
}

#[test]
fn a_request_left_in_process_by_somebody_else_is_served() {
    let domain = guest(1);
    let mut server = server(&domain);
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    set_state(&domain, server.id(), 2);
    server.next_request().unwrap().unwrap().complete_read(6);
    assert_eq!(access.poll(), Some(Ok(6)));
}

#[test]
fn a_slot_taken_back_is_served_again_and_not_answered_twice() {
    let domain = guest(1);
    let mut server = server(&domain);
    // The event of the fresh channel, so that there is only one more.
    assert!(server.next_request().unwrap().is_none());
    let mut access = domain.vcpu(0).begin_read(BASE, 4).unwrap();
    let request = server.next_request().unwrap().unwrap();
    // As no one should.
    set_state(&domain, 0, 1);
    request.complete_read(1);
    server.next_request().unwrap().unwrap().complete_read(2);
    assert_eq!(access.poll(), Some(Ok(2)));
    assert!(server.next_request().unwrap().is_none());
    assert_eq!(domain.waiting_vcpus(), 0);
}

#[test]
fn calls_fail_on_demand_and_then_no_more() {
    let domain = guest(1);
    let model = domain.device_model();
    domain.fail_next(Call::NrVcpus, 2, libc::EPERM);
    domain.fail_next(Call::SetIrqLevel, 0, libc::EPERM);
    assert_eq!(errno(model.nr_vcpus()), libc::EPERM);
    model.set_irq_level(33, true).unwrap();
    assert_eq!(errno(model.nr_vcpus()), libc::EPERM);
    assert_eq!(model.nr_vcpus().unwrap(), 1);
}

#[test]
fn guests_can_share_a_hypervisor() {
    let one = guest(1);
    let two = FakeDomain::builder().domid(2).hub(one.hub()).build();
    let events = one.event_channel().unwrap();
    drop((new_server(&one), new_server(&two)));
    two.destroy();
    let bound = events.bind_interdomain(2, 1);
    assert_eq!(errno(bound), libc::ESRCH);
    new_server(&one).enable().unwrap();
}

#[test]
fn the_backend_sees_the_guests_memory() {
    let domain = guest(1);
    domain.ram().write(0x2_0000_0123, b"from the guest").unwrap();
    let gfns = [0x2_0000_0000 >> 12];
    let mapping = domain.foreign_memory().map(xen_foreignmem::Prot::READ, &gfns).unwrap();
    let mut seen = [0; 14];
    mapping.as_volatile_slice().subslice(0x123, 14).unwrap().copy_to(&mut seen);
    assert_eq!(&seen, b"from the guest");
    let gref = domain.grants().grant(0x4_0000, true);
    assert!(domain.grant_table().end_access(gref).is_ok());
}

#[test]
fn a_dying_domain_has_neither_memory_nor_servers_until_its_last_page_is_unmapped() {
    let domain = guest(1);
    let model = domain.device_model();
    let id = model.create_ioreq_server().unwrap();
    let gref = domain.grants().grant(0x4_0000, false);
    let held = domain.grant_table().map(&[gref], Prot::READ).unwrap();
    domain.destroy();
    assert_eq!(model.nr_vcpus().unwrap(), 1);
    assert_eq!(errno(model.ioreq_server_info(id)), libc::ENOENT);
    assert_eq!(errno(model.map_mmio_range(id, 0..=1)), libc::ENOENT);
    assert_eq!(errno(model.set_ioreq_server_state(id, false)), libc::ENOENT);
    assert_eq!(errno(model.create_ioreq_server()), libc::EINVAL);
    model.set_irq_level(33, true).unwrap();
    assert_eq!(domain.irq_count(33), 0);
    let foreign = domain.foreign_memory();
    assert_eq!(foreign.map(Prot::READ, &[0x4_0000]).unwrap_err().errno(), Some(libc::EINVAL));
    let page = foreign.map_resource(RESOURCE_IOREQ_SERVER, id.into(), 1, 1);
    assert_eq!(page.unwrap_err().errno(), Some(libc::ENOENT));
    assert!(domain.grant_table().map(&[gref], Prot::READ).is_err());
    drop(held);
    assert_eq!(errno(model.nr_vcpus()), libc::ESRCH);
    assert_eq!(errno(model.ioreq_server_info(id)), libc::ESRCH);
    assert_eq!(foreign.map(Prot::READ, &[0x4_0000]).unwrap_err().errno(), Some(libc::ESRCH));
}
