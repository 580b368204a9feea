//! A guest that has the function on its bus.

use std::sync::{Arc, Mutex};

use virtio_dev::{IrqLine, WriteOutcome};
use virtio_pci_dev::{MsiLines, PciTransport, PciTransportBuilder};

use super::structures::{Structure, Structures, common};
use super::{RING, Recorder, RingAt, TestDevice};

/// Where the guest places the BAR.
pub const BAR: u32 = 0x2300_0000;
/// Where messages go.
pub const DOORBELL: u64 = 0x0220_0040;

/// Address and data of a message that was sent.
pub type Message = (u64, u32);

/// What the guest's interrupt controller hears, at [`DOORBELL`] and nowhere else.
#[derive(Clone, Default)]
pub struct Messages {
    sent: Arc<Mutex<Vec<Message>>>,
    /// What the function has asked for.
    pub asked: Arc<Mutex<Vec<Message>>>,
}

impl MsiLines for Messages {
    fn line(&self, address: u64, data: u32) -> Option<Arc<dyn IrqLine>> {
        self.asked.lock().unwrap().push((address, data));
        let sent = Arc::clone(&self.sent);
        let line = move || sent.lock().unwrap().push((address, data));
        (address == DOORBELL).then(|| Arc::new(line) as Arc<dyn IrqLine>)
    }
}

impl Messages {
    /// The data of the messages sent since the last call.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.sent.lock().unwrap()).into_iter().map(|(_, data)| data).collect()
    }
}

impl Messages {
    /// No message was sent since the last look.
    #[track_caller]
    pub fn none(&self, why: &str) {
        assert_eq!(self.take(), Vec::<u32>::new(), "{why}");
    }
}

pub struct Guest {
    pub transport: PciTransport<TestDevice>,
    pub queues: Recorder,
    pub messages: Messages,
    pub at: Structures,
}

impl Guest {
    /// A function that nobody has touched.
    pub fn new(device: TestDevice) -> Self {
        Self::on_host(device, |builder| builder)
    }

    /// The same, whose host is told what it adds.
    pub fn on_host(
        device: TestDevice,
        host: impl FnOnce(PciTransportBuilder<TestDevice>) -> PciTransportBuilder<TestDevice>,
    ) -> Self {
        let messages = Messages::default();
        let builder = PciTransport::builder(device, messages.clone());
        Self::with(host(builder).build().unwrap(), messages)
    }

    pub fn with(transport: PciTransport<TestDevice>, messages: Messages) -> Self {
        let (queues, at) = (Recorder::default(), Structures::default());
        let mut guest = Self { transport, queues, messages, at };
        guest.find_structures();
        guest
    }

    /// A function with its BAR in place, that may write.
    pub fn placed(device: TestDevice) -> Self {
        let mut guest = Self::new(device);
        guest.place();
        guest
    }

    pub fn place(&mut self) {
        self.set_config(0x10, BAR);
        self.set_config(0x04, 0x0006_u16);
    }

    /// All the way to a live queue 0 of 16 descriptors, with messages 100 for configuration changes and
    /// 101 for the queue.
    pub fn live(features: u64) -> Self {
        let mut guest = Self::placed(TestDevice::default());
        guest.enable_messages();
        guest.negotiate(features);
        guest.set(common::CONFIG_MSIX_VECTOR, 0_u16);
        guest.set_up_queue(0, 16, &RING);
        guest.set(common::QUEUE_MSIX_VECTOR, 1_u16);
        guest.set(common::QUEUE_ENABLE, 1_u16);
        guest.set(common::DEVICE_STATUS, 15_u8);
        guest
    }

    /// Enables MSI-X with the messages 100 and up, none masked.
    pub fn enable_messages(&mut self) {
        for vector in 0..self.at.vectors {
            self.set_entry(vector, DOORBELL, 100 + u32::from(vector), false);
        }
        self.set_msix(true, false);
    }

    pub fn set_msix(&mut self, enabled: bool, masked: bool) {
        let control = u16::from(enabled) << 15 | u16::from(masked) << 14;
        self.set_config(self.at.msix + 2, control);
    }

    pub fn set_bus_master(&mut self, on: bool) {
        self.set_config(0x04, 0x0002 | u16::from(on) << 2);
    }

    pub fn set_entry(&mut self, vector: u16, address: u64, data: u32, masked: bool) {
        let at = self.at.table + u64::from(vector) * 16;
        let parts = [address as u32, (address >> 32) as u32, data, u32::from(masked)];
        for (at, part) in (at..).step_by(4).zip(parts) {
            assert_eq!(self.write(at, &part.to_le_bytes()), WriteOutcome::Done);
        }
    }

    pub fn mask(&mut self, vector: u16, masked: bool) {
        let at = self.at.table + u64::from(vector) * 16 + 12;
        assert_eq!(self.write(at, &u32::from(masked).to_le_bytes()), WriteOutcome::Done);
    }

    pub fn pending_bits(&mut self) -> u64 {
        self.read(self.at.pending_bits)
    }

    pub fn read<T: Value>(&mut self, offset: u64) -> T {
        T::of(|data| self.transport.bar_read(offset, data))
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> WriteOutcome {
        self.queues.calls.clear();
        self.transport.bar_write(offset, data, &mut self.queues)
    }

    /// Reads a field of the common configuration.
    pub fn get<T: Value>(&mut self, field: u64) -> T {
        self.read(self.at.common.offset + field)
    }

    /// Writes a field of the common configuration.
    pub fn put<T: Value>(&mut self, field: u64, value: T) -> WriteOutcome {
        self.write(self.at.common.offset + field, &value.bytes())
    }

    /// Writes a field of the common configuration, which is taken or ignored.
    pub fn set<T: Value>(&mut self, field: u64, value: T) {
        let outcome = self.put(field, value);
        assert!(matches!(outcome, WriteOutcome::Done | WriteOutcome::Ignored(_)), "{outcome:?}");
    }

    pub fn config<T: Value>(&mut self, offset: u16) -> T {
        T::of(|data| self.transport.config_read(offset, data))
    }

    pub fn write_config(&mut self, offset: u16, data: &[u8]) -> WriteOutcome {
        self.queues.calls.clear();
        self.transport.config_write(offset, data, &mut self.queues)
    }

    pub fn set_config<T: Value>(&mut self, offset: u16, value: T) {
        assert_eq!(self.write_config(offset, &value.bytes()), WriteOutcome::Done);
    }

    pub fn status(&mut self) -> u8 {
        self.get(common::DEVICE_STATUS)
    }

    pub fn offer(&mut self, features: u64) {
        for (page, bits) in [(0_u32, features as u32), (1, (features >> 32) as u32)] {
            self.set(common::DRIVER_FEATURE_SELECT, page);
            self.set(common::DRIVER_FEATURE, bits);
        }
    }

    /// Up to and including FEATURES_OK.
    pub fn negotiate(&mut self, features: u64) {
        self.set(common::DEVICE_STATUS, 1_u8);
        self.set(common::DEVICE_STATUS, 3_u8);
        self.offer(features);
        self.set(common::DEVICE_STATUS, 11_u8);
    }

    pub fn set_up_queue(&mut self, index: u16, size: u16, at: &RingAt) {
        self.set(common::QUEUE_SELECT, index);
        self.set(common::QUEUE_SIZE, size);
        for (field, addr) in [
            (common::QUEUE_DESC, at.desc),
            (common::QUEUE_DRIVER, at.avail),
            (common::QUEUE_DEVICE, at.used),
        ] {
            self.set(field, addr as u32);
            self.set(field + 4, (addr >> 32) as u32);
        }
    }

    /// Whatever drains has stopped.
    pub fn stopped(&mut self) {
        (0..3).for_each(|queue| self.transport.queue_stopped(queue));
    }

    /// Walks the list of capabilities.
    fn find_structures(&mut self) {
        let mut at = Structures::default();
        let mut next: u8 = self.config(0x34);
        while next != 0 {
            let offset = u16::from(next);
            let id: u8 = self.config(offset);
            next = self.config(offset + 1);
            at.list.push((offset, id));
            assert!(at.list.len() < 16, "a loop");
            if id == 0x11 {
                at.msix = offset;
                at.vectors = (self.config::<u16>(offset + 2) & 0x7ff) + 1;
                at.table = self.config::<u32>(offset + 4).into();
                at.pending_bits = self.config::<u32>(offset + 8).into();
                continue;
            }
            let structure = Structure {
                offset: self.config::<u32>(offset + 8).into(),
                len: self.config::<u32>(offset + 12).into(),
            };
            match self.config::<u8>(offset + 3) {
                1 => at.common = structure,
                2 => {
                    at.notify = structure;
                    at.notify_off_multiplier = self.config::<u32>(offset + 16).into();
                }
                3 => at.isr = structure,
                4 => at.device = Some(structure),
                5 => at.window = offset,
                other => panic!("cfg_type {other}"),
            }
        }
        self.at = at;
    }
}

/// A value of a register.
pub trait Value: Copy {
    fn of(read: impl FnOnce(&mut [u8])) -> Self;
    fn bytes(self) -> Vec<u8>;
}

macro_rules! values {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn of(read: impl FnOnce(&mut [u8])) -> Self {
                // What a read doesn't set is seen.
                let mut data = [0xaa; size_of::<Self>()];
                read(&mut data);
                Self::from_le_bytes(data)
            }
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        })*
    };
}
values!(u8 u16 u32 u64);
