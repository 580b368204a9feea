//! A device on a guest's PCI bus, as the guest's kernel finds it.

use xen_ioreq::fake::{FakeDomain, FakeVcpu, Fault};

use crate::pci::{ECAM, FRAME, frame::SET_SPI};

/// Where the registers of function 0 of a type 0 header are (PCI 3.0, 6.1 and 6.7).
mod config {
    pub(super) const VENDOR_ID: u64 = 0x00;
    pub(super) const COMMAND: u64 = 0x04;
    pub(super) const BAR0: u64 = 0x10;
    pub(super) const CAPABILITIES: u64 = 0x34;
}

/// `COMMAND`: memory decoding, and bus mastering, without which no message is sent.
const MEMORY_AND_MASTER: u16 = 6;
/// Capabilities (virtio 1.2 §4.1.4).
const MSI_X: u8 = 0x11;
const VENDOR: u8 = 0x09;
/// `cfg_type` (§4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const ISR: u8 = 3;
const DEVICE: u8 = 4;

/// A device on a guest's PCI bus, as the guest's kernel finds it and sets it up, from one vCPU. Every access traps.
#[derive(Clone, Debug)]
pub struct PciFunction {
    vcpu: FakeVcpu,
    config: u64,
    bar: u64,
    /// Offsets in BAR 0.
    common: u64,
    notify: u64,
    notify_multiplier: u64,
    isr: u64,
    device: u64,
    msix_table: u64,
    /// Where the MSI-X capability is in the configuration space.
    msix: u64,
}

impl PciFunction {
    /// Reads the first four bytes of the configuration space of function 0 of a device.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn vendor(domain: &FakeDomain, vcpu: u32, device: u8) -> Result<u32, Fault> {
        let config = ECAM.start() + (u64::from(device) << 15);
        domain.vcpu(vcpu).read(config + config::VENDOR_ID, 4).map(|id| id as u32)
    }

    /// Looks for a device at this number on the bus, puts its registers at `bar`, and has it send messages. `None` if
    /// there is none.
    ///
    /// # Panics
    /// Nobody answers, or the device isn't virtio's.
    pub fn find(domain: &FakeDomain, vcpu: u32, device: u8, bar: u64) -> Option<Self> {
        let id = Self::vendor(domain, vcpu, device).expect("every place on the bus answers");
        if id == u32::MAX {
            return None;
        }
        assert_eq!(id & 0xffff, 0x1af4, "virtio's vendor");
        let config = ECAM.start() + (u64::from(device) << 15);
        let vcpu = domain.vcpu(vcpu);
        let mut it = Self {
            vcpu,
            config,
            bar,
            common: 0,
            notify: 0,
            notify_multiplier: 0,
            isr: 0,
            device: 0,
            msix_table: 0,
            msix: 0,
        };
        it.read_capabilities();
        it.move_to(bar);
        Some(it)
    }

    /// Puts the registers at `bar`.
    pub fn move_to(&mut self, bar: u64) {
        self.write_config(config::COMMAND, 2, 0);
        self.write_config(config::BAR0, 4, bar & 0xffff_ffff);
        self.write_config(config::BAR0 + 4, 4, bar >> 32);
        self.write_config(config::COMMAND, 2, MEMORY_AND_MASTER.into());
        self.bar = bar;
    }

    fn read_capabilities(&mut self) {
        let mut at = self.read_config(config::CAPABILITIES, 1);
        while at != 0 {
            match self.read_config(at, 1) as u8 {
                VENDOR => {
                    let offset = self.read_config(at + 8, 4);
                    match self.read_config(at + 3, 1) as u8 {
                        COMMON => self.common = offset,
                        NOTIFY => {
                            self.notify = offset;
                            self.notify_multiplier = self.read_config(at + 16, 4);
                        }
                        ISR => self.isr = offset,
                        DEVICE => self.device = offset,
                        _ => {}
                    }
                }
                MSI_X => {
                    self.msix = at;
                    self.msix_table = self.read_config(at + 4, 4) & !7;
                }
                _ => {}
            }
            at = self.read_config(at + 1, 1);
        }
    }

    /// Has a vector of its table raise this interrupt, by a message to the guest's GICv2m frame, and enables messages.
    pub fn set_vector(&self, vector: u16, spi: u32) {
        self.set_message(vector, FRAME.start() + SET_SPI, spi);
    }

    /// The same for a message of any kind.
    pub fn set_message(&self, vector: u16, address: u64, data: u32) {
        let entry = self.msix_table + 16 * u64::from(vector);
        self.write(entry, 4, address & 0xffff_ffff);
        self.write(entry + 4, 4, address >> 32);
        self.write(entry + 8, 4, data.into());
        self.write(entry + 12, 4, 0);
        let control = self.read_config(self.msix + 2, 2);
        self.write_config(self.msix + 2, 2, control & 0x3fff | 0x8000);
    }

    /// Reads 1, 2, 4 or 8 bytes of the common configuration, of the device's, or of BAR 0.
    pub fn read_common(&self, offset: u64, size: u8) -> u64 {
        self.read(self.common + offset, size)
    }

    /// Writes to the common configuration (virtio 1.2 §4.1.4.3).
    pub fn write_common(&self, offset: u64, size: u8, value: u64) {
        self.write(self.common + offset, size, value);
    }

    /// Reads the ISR status, which clears it (§4.1.4.5).
    pub fn take_isr(&self) -> u8 {
        self.read(self.isr, 1) as u8
    }

    /// Reads the device's own configuration.
    pub fn read_device(&self, offset: u64, size: u8) -> u64 {
        self.read(self.device + offset, size)
    }

    /// Writes to the device's own configuration.
    pub fn write_device(&self, offset: u64, size: u8, value: u64) {
        self.write(self.device + offset, size, value);
    }

    /// Notifies a queue, whose `queue_notify_off` is this (§4.1.4.4).
    pub fn notify(&self, queue: u16, notify_off: u64) {
        self.write(self.notify + notify_off * self.notify_multiplier, 2, queue.into());
    }

    fn read(&self, offset: u64, size: u8) -> u64 {
        self.vcpu.read(self.bar + offset, size).expect("BAR 0 answers")
    }

    fn write(&self, offset: u64, size: u8, value: u64) {
        self.vcpu.write(self.bar + offset, size, value).expect("BAR 0 answers");
    }

    /// Whether somebody answers where its registers are, or were.
    pub fn answers_at(&self, bar: u64) -> bool {
        self.vcpu.read(bar, 4).is_ok()
    }

    /// Reads its configuration space.
    pub fn read_config(&self, offset: u64, size: u8) -> u64 {
        self.vcpu.read(self.config + offset, size).expect("the configuration space answers")
    }

    fn write_config(&self, offset: u64, size: u8, value: u64) {
        self.vcpu
            .write(self.config + offset, size, value)
            .expect("the configuration space answers");
    }
}
