//! Interrupts and kicks through the kernel, on the fake.

mod common;

use std::time::Duration;

use common::{BASE, guest, new_server, serve, server};
use xen_ioreq::eventfd::IrqFd;
use xen_ioreq::fake::{Call, Fault};
use xen_ioreq::{DeviceModel, RequestKind};

const IRQ: u32 = 33;

#[test]
fn an_irqfd_raises_until_it_is_dropped() {
    let domain = guest(1);
    let irq = IrqFd::new(domain.device_model(), IRQ).unwrap();
    irq.raise().unwrap();
    assert!(domain.wait_irq(IRQ, 1, Duration::from_secs(1)));
    // Not looked at in between, several raises are one.
    irq.raise().unwrap();
    irq.raise().unwrap();
    assert_eq!(domain.irq_count(IRQ), 2);
    assert!(domain.irq_level(IRQ));
    assert!(!domain.wait_irq(IRQ, 3, Duration::from_millis(5)));
    drop(irq);
    assert_eq!(domain.eventfds(), 0);
    assert_eq!(domain.irq_count(IRQ), 2);
}

#[test]
fn an_irqfd_that_the_kernel_lacks_is_an_error() {
    let domain = guest(1);
    domain.fail_next(Call::IrqFd, 1, libc::ENOTTY);
    let error = IrqFd::new(domain.device_model(), IRQ).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    assert_eq!(domain.eventfds(), 0);
}

#[test]
fn set_irq_level_takes_spis_only() {
    let domain = guest(1);
    let model = domain.device_model();
    model.set_irq_level(IRQ, true).unwrap();
    model.set_irq_level(IRQ, false).unwrap();
    assert_eq!((domain.irq_count(IRQ), domain.irq_level(IRQ)), (1, false));
    for irq in [0, 31, 1020, u32::MAX] {
        let error = model.set_irq_level(irq, true).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{irq}");
    }
}

#[test]
fn the_kernel_takes_the_kicks_of_its_queue_only() {
    let domain = guest(2);
    let mut server = server(&domain);
    let kicks = server.ioeventfd(BASE, 4, 1).unwrap();
    for vcpu in [0, 1] {
        // The kernel answers: no server has to run.
        domain.vcpu(vcpu).write(BASE + 0x50, 4, 0xffff_0001).unwrap();
    }
    assert_eq!(kicks.take().unwrap(), 2);
    assert_eq!(kicks.take().unwrap(), 0);
    // All else comes here: another queue, another width, another register, a read.
    for (addr, size, data) in [(0x50, 4, 0), (0x50, 2, 1), (0x54, 4, 1)] {
        let mut seen = None;
        let written = domain.vcpu(0).write_with(BASE + addr, size, data, || {
            while let Some(request) = server.next_request().unwrap() {
                seen = Some(request.kind());
            }
        });
        written.unwrap();
        assert_eq!(seen, Some(RequestKind::Write { addr: BASE + addr, size, data }));
    }
    let value = domain.vcpu(0).read_with(BASE + 0x50, 4, || serve(&mut server, |_| 5));
    assert_eq!(value, Ok(5));
    assert_eq!(kicks.take().unwrap(), 0);
    // What the kernel had answered was an event without a request here.
    assert_eq!(server.stats().requests, 4);
    assert!(server.stats().spurious >= 1, "{:?}", server.stats());
    drop(kicks);
    assert_eq!(domain.eventfds(), 0);
    let mut step = || serve(&mut server, |_| 0);
    domain.vcpu(0).write_with(BASE + 0x50, 4, 1, &mut step).unwrap();
    assert_eq!(server.stats().requests, 5);
}

#[test]
fn an_ioeventfd_needs_an_enabled_server_and_a_free_kick() {
    let domain = guest(1);
    let mut server = new_server(&domain);
    let error = server.ioeventfd(BASE, 4, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    server.enable().unwrap();
    let first = server.ioeventfd(BASE, 4, 0).unwrap();
    let error = server.ioeventfd(BASE, 4, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
    let _other = server.ioeventfd(BASE, 4, 1).unwrap();
    drop(first);
    server.ioeventfd(BASE, 4, 0).unwrap();
}

/// The kernel's handler has a pointer to the page and uses the ports: they outlive the server.
#[test]
fn the_page_and_the_ports_stay_while_the_kernel_uses_them() {
    let domain = guest(2);
    let server = server(&domain);
    let kicks = server.ioeventfd(BASE, 4, 0).unwrap();
    drop(server);
    assert_eq!(domain.foreign_memory().live_mappings(), 1);
    assert_eq!(domain.hub().local_ports().len(), 2);
    assert_eq!(domain.vcpu(0).write(BASE + 0x50, 4, 0), Err(Fault::Abort));
    drop(kicks);
}

#[test]
fn what_the_kernel_does_not_let_go_is_never_unmapped() {
    let domain = guest(1);
    let server = server(&domain);
    let kicks = server.ioeventfd(BASE, 4, 0).unwrap();
    domain.fail_next(Call::IoEventFd, 1, libc::ENODEV);
    drop(kicks);
    drop(server);
    assert_eq!(domain.foreign_memory().live_mappings(), 1);
    assert_eq!(domain.hub().local_ports().len(), 1);
}
