//! What a driver can do, in bytes.

use virtio_mmio_dev::Register;

use crate::input::Input;
use crate::transport_case::Encode;

/// One thing a driver, or time, does.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a 32-bit register, by its place in [`Register::ALL`].
    Write(u8, u32),
    /// The same with a small value, in fewer bytes.
    Set(u8, u8),
    /// Writes these bytes at an offset in the window.
    WriteRaw(u16, Vec<u8>),
    /// Reads at an offset in the window, this many bytes.
    ReadRaw(u16, u8),
    /// Stores bytes in memory.
    Store(u16, Vec<u8>),
    /// Fills a descriptor of the first queue: index, address, length, flags, next.
    Descriptor(u8, u16, u16, u8, u8),
    /// Makes a descriptor available in the first queue.
    Offer(u8),
    /// The worker gets a turn, notified or not.
    Turn,
    /// What was to be answered late is answered.
    Finish,
    /// Someone still has the interrupt of an earlier run of the device, and uses it.
    Stale,
    /// The transport is made anew from its state.
    Restore,
    /// A complete initialisation: which features (`PREDICTED` masked), and the queue's size as a
    /// power of two.
    Initialise(u8, u8),
    /// A request in three descriptors, made available and notified: type, sector, sectors of data.
    Request(u8, u8, u8),
    /// The image fails or falls short next time.
    Fault(u8),
    /// The first queue's rings move, each to a multiple of 256: table, available, used.
    Rings(u8, u8, u8),
    /// The device says that its configuration changed.
    ConfigChanged,
}

/// The longest data of an access or a store.
const DATA: u8 = 33;

impl Op {
    /// The place of a register, for [`Op::Write`] and [`Op::Set`].
    ///
    /// # Panics
    /// If there is no such register.
    pub fn place(register: Register) -> u8 {
        let place = Register::ALL.iter().position(|known| *known == register);
        place.and_then(|place| u8::try_from(place).ok()).expect("a register")
    }

    /// The next operation.
    pub fn take(input: &mut Input<'_>) -> Self {
        match input.u8() % 16 {
            0 => Self::Write(input.u8(), input.u32()),
            1 => Self::Set(input.u8(), input.u8()),
            2 => Self::WriteRaw(input.u16(), Self::data(input)),
            3 => Self::ReadRaw(input.u16(), input.u8()),
            4 => Self::Store(input.u16(), Self::data(input)),
            5 => Self::Descriptor(input.u8(), input.u16(), input.u16(), input.u8(), input.u8()),
            6 => Self::Offer(input.u8()),
            7 => Self::Turn,
            8 => Self::Finish,
            9 => Self::Stale,
            10 => Self::Restore,
            11 => Self::Initialise(input.u8(), input.u8()),
            12 => Self::Request(input.u8(), input.u8(), input.u8()),
            13 => Self::Fault(input.u8()),
            14 => Self::Rings(input.u8(), input.u8(), input.u8()),
            _ => Self::ConfigChanged,
        }
    }

    fn data(input: &mut Input<'_>) -> Vec<u8> {
        let len = input.u8() % DATA;
        input.bytes(len.into()).to_vec()
    }

    fn encode_data(tag: u8, at: u16, data: &[u8], bytes: &mut Vec<u8>) {
        bytes.push(tag);
        bytes.extend(at.to_le_bytes());
        bytes.push(data.len() as u8);
        bytes.extend(data);
    }
}

impl Encode for Op {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(place, value) => {
                bytes.extend([0, *place]);
                bytes.extend(value.to_le_bytes());
            }
            Self::Set(place, value) => bytes.extend([1, *place, *value]),
            Self::WriteRaw(offset, data) => Self::encode_data(2, *offset, data, bytes),
            Self::ReadRaw(offset, len) => {
                bytes.push(3);
                bytes.extend(offset.to_le_bytes());
                bytes.push(*len);
            }
            Self::Store(addr, data) => Self::encode_data(4, *addr, data, bytes),
            Self::Descriptor(index, addr, len, flags, next) => {
                bytes.extend([5, *index]);
                bytes.extend(addr.to_le_bytes());
                bytes.extend(len.to_le_bytes());
                bytes.extend([*flags, *next]);
            }
            Self::Offer(head) => bytes.extend([6, *head]),
            Self::Turn => bytes.push(7),
            Self::Finish => bytes.push(8),
            Self::Stale => bytes.push(9),
            Self::Restore => bytes.push(10),
            Self::Initialise(features, log) => bytes.extend([11, *features, *log]),
            Self::Request(kind, sector, sectors) => bytes.extend([12, *kind, *sector, *sectors]),
            Self::Fault(fault) => bytes.extend([13, *fault]),
            Self::Rings(desc, avail, used) => bytes.extend([14, *desc, *avail, *used]),
            Self::ConfigChanged => bytes.push(15),
        }
    }
}
