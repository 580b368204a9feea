//! A device's registers as a vCPU sees them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use xen_ioreq::fake::{FakeDomain, FakeVcpu};

use super::{reg, wait::until};

/// One vCPU's way to the registers and the interrupt of one device. Every access traps. Clones are of the same vCPU
/// and device.
#[derive(Clone, Debug)]
pub struct Window {
    domain: FakeDomain,
    vcpu: FakeVcpu,
    base: u64,
    irq: u32,
    off: Arc<AtomicBool>,
    /// How many interrupts [`wait_interrupt`](Self::wait_interrupt) has dealt with.
    handled: Arc<AtomicU64>,
}

impl Window {
    /// The device whose window is at `base` and whose interrupt is `irq`, from this vCPU.
    ///
    /// # Panics
    /// The guest has no such vCPU.
    pub fn new(domain: &FakeDomain, vcpu: u32, base: u64, irq: u32) -> Self {
        Self {
            domain: domain.clone(),
            vcpu: domain.vcpu(vcpu),
            base,
            irq,
            off: Arc::default(),
            handled: Arc::new(AtomicU64::new(domain.irq_count(irq))),
        }
    }

    /// The guest stops here: what its driver does from now on through this window, or a clone, isn't done.
    pub fn power_off(&self) {
        self.off.store(true, Ordering::SeqCst);
    }

    /// A driver that is dropped by a test's failure must not hide that one.
    fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst) || thread::panicking()
    }

    /// Reads 32 bits at an offset, as [`reg`] has them.
    ///
    /// # Panics
    /// Nobody answers there, or not in time.
    pub fn read(&self, offset: u64) -> u32 {
        self.read_sized(offset, 4) as u32
    }

    /// Writes 32 bits at an offset.
    ///
    /// # Panics
    /// Nobody answers there, or not in time.
    pub fn write(&self, offset: u64, value: u32) {
        self.write_sized(offset, 4, value.into());
    }

    /// Reads 1, 2, 4 or 8 bytes at an offset.
    ///
    /// # Panics
    /// Nobody answers there, or not in time.
    pub fn read_sized(&self, offset: u64, size: u8) -> u64 {
        if self.is_off() {
            return 0;
        }
        self.vcpu.read(self.base + offset, size).expect("the window answers")
    }

    /// Writes 1, 2, 4 or 8 bytes at an offset.
    ///
    /// # Panics
    /// Nobody answers there, or not in time.
    pub fn write_sized(&self, offset: u64, size: u8, value: u64) {
        if !self.is_off() {
            self.vcpu.write(self.base + offset, size, value).expect("the window answers");
        }
    }

    /// Whether somebody answers at the window.
    pub fn is_there(&self) -> bool {
        self.vcpu.read(self.base, 4).is_ok()
    }

    /// Whether a virtio device answers at the window, rather than nobody, or nothing but all ones.
    pub fn has_device(&self) -> bool {
        self.vcpu.read(self.base, 4) == Ok(reg::MAGIC_VALUE.into())
    }

    /// The features that the device offers.
    pub fn device_features(&self) -> u64 {
        let page = |sel| {
            self.write(reg::DEVICE_FEATURES_SEL, sel);
            u64::from(self.read(reg::DEVICE_FEATURES))
        };
        page(0) | page(1) << 32
    }

    /// Tells the device which features the driver takes.
    pub fn set_driver_features(&self, features: u64) {
        for (sel, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(reg::DRIVER_FEATURES_SEL, sel);
            self.write(reg::DRIVER_FEATURES, half);
        }
    }

    /// Writes an address to a register of two halves, the low one first.
    pub fn write_address(&self, offset: u64, addr: u64) {
        self.write(offset, addr as u32);
        self.write(offset + 4, (addr >> 32) as u32);
    }

    /// How often the device's interrupt was raised.
    pub fn interrupts(&self) -> u64 {
        self.domain.irq_count(self.irq)
    }

    /// What an interrupt handler does first: reads what happened (`InterruptStatus`), and acknowledges it.
    pub fn ack_interrupt(&self) -> u32 {
        let pending = self.read(reg::INTERRUPT_STATUS);
        if pending != 0 {
            self.write(reg::INTERRUPT_ACK, pending);
        }
        pending
    }

    /// Waits for an interrupt that was raised after the last one that this waited for, or after this window was made;
    /// then acknowledges what happened and gives it, as [`ack_interrupt`](Self::ack_interrupt) does.
    ///
    /// # Panics
    /// It doesn't come within [`PATIENCE`](super::PATIENCE).
    pub fn wait_interrupt(&self) -> u32 {
        let handled = self.handled.load(Ordering::SeqCst);
        until("the interrupt", || self.interrupts() > handled);
        self.handled.store(self.interrupts(), Ordering::SeqCst);
        self.ack_interrupt()
    }
}
