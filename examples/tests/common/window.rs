//! A device's registers as a vCPU sees them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use xen_ioreq::fake::FakeVcpu;

/// Register offsets (virtio 1.2 §4.2.2, `virtio_mmio.h`).
pub mod reg {
    pub const MAGIC: u64 = 0x000;
    pub const VERSION: u64 = 0x004;
    pub const DEVICE_ID: u64 = 0x008;
    pub const DEVICE_FEATURES: u64 = 0x010;
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    pub const DRIVER_FEATURES: u64 = 0x020;
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    pub const QUEUE_SEL: u64 = 0x030;
    pub const QUEUE_SIZE_MAX: u64 = 0x034;
    pub const QUEUE_SIZE: u64 = 0x038;
    pub const QUEUE_READY: u64 = 0x044;
    pub const QUEUE_NOTIFY: u64 = 0x050;
    pub const INTERRUPT_STATUS: u64 = 0x060;
    pub const INTERRUPT_ACK: u64 = 0x064;
    pub const STATUS: u64 = 0x070;
    pub const QUEUE_DESC: u64 = 0x080;
    pub const QUEUE_DRIVER: u64 = 0x090;
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    pub const CONFIG_GENERATION: u64 = 0x0fc;
    pub const CONFIG: u64 = 0x100;
}

/// "virt"
pub const MAGIC: u32 = 0x7472_6976;

/// One vCPU's way to one device.
#[derive(Clone)]
pub struct Window {
    vcpu: FakeVcpu,
    base: u64,
    off: Arc<AtomicBool>,
}

impl Window {
    pub fn new(vcpu: FakeVcpu, base: u64) -> Self {
        Self { vcpu, base, off: Arc::default() }
    }

    /// The guest stops here: what its driver does from now on through this window, or a clone, isn't done.
    pub fn power_off(&self) {
        self.off.store(true, Ordering::SeqCst);
    }

    /// A driver that is dropped by a test's failure must not hide that one.
    fn is_off(&self) -> bool {
        self.off.load(Ordering::SeqCst) || thread::panicking()
    }

    pub fn read(&self, offset: u64) -> u32 {
        self.read_sized(offset, 4) as u32
    }

    pub fn write(&self, offset: u64, value: u32) {
        self.write_sized(offset, 4, value.into());
    }

    pub fn read_sized(&self, offset: u64, size: u8) -> u64 {
        if self.is_off() {
            return 0;
        }
        self.vcpu.read(self.base + offset, size).expect("the window answers")
    }

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
        self.vcpu.read(self.base, 4) == Ok(MAGIC.into())
    }

    pub fn device_features(&self) -> u64 {
        let page = |sel| {
            self.write(reg::DEVICE_FEATURES_SEL, sel);
            u64::from(self.read(reg::DEVICE_FEATURES))
        };
        page(0) | page(1) << 32
    }

    pub fn set_driver_features(&self, features: u64) {
        for (sel, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(reg::DRIVER_FEATURES_SEL, sel);
            self.write(reg::DRIVER_FEATURES, half);
        }
    }

    /// What an interrupt handler does first: reads what happened, and says it has.
    pub fn ack_interrupt(&self) -> u32 {
        let pending = self.read(reg::INTERRUPT_STATUS);
        if pending != 0 {
            self.write(reg::INTERRUPT_ACK, pending);
        }
        pending
    }
}
