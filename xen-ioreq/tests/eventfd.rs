//! Interrupts through the kernel, on the fake.

mod common;

use std::time::Duration;

use common::guest;
use xen_ioreq::DeviceModel;
use xen_ioreq::eventfd::IrqFd;
use xen_ioreq::fake::Call;

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
