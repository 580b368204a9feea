//! What a driver can do, in bytes.

use crate::input::Input;
use crate::transport_case::Encode;

/// The fields of the common configuration that a driver writes: offset and width. The structure is at
/// the start of the BAR, which the seeds rely on and nothing else.
pub const FIELDS: [(u16, usize); 14] = [
    (0x00, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 2),
    (0x14, 1),
    (0x16, 2),
    (0x18, 2),
    (0x1a, 2),
    (0x1c, 2),
    (0x20, 8),
    (0x28, 8),
    (0x30, 8),
    (0x34, 4),
    (0x3a, 2),
];

/// One thing a driver, or time, does.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a field, by its place in [`FIELDS`].
    Write(u8, u32),
    /// The same with a small value, in fewer bytes.
    Set(u8, u8),
    /// Writes these bytes at an offset in the BAR.
    WriteRaw(u16, Vec<u8>),
    /// Reads at an offset in the BAR, this many bytes.
    ReadRaw(u16, u8),
    /// Writes these bytes at an offset in the configuration space.
    WriteConfig(u16, Vec<u8>),
    /// Reads at an offset in the configuration space, this many bytes.
    ReadConfig(u16, u8),
    /// Stores bytes in memory.
    Store(u16, Vec<u8>),
    /// Fills a descriptor of the queue: index, address, length, flags, next.
    Descriptor(u8, u16, u16, u8, u8),
    /// Makes a descriptor available in the queue.
    Offer(u8),
    /// The worker gets a turn, notified or not.
    Turn,
    /// What was to be done late is done.
    Finish,
    /// Someone still has the interrupt of an earlier run of the device, and uses it.
    Stale,
    /// The function is made anew from its state.
    Restore,
    /// A complete initialisation, with vectors 0 and 1: which features (`PREDICTED` masked), and the
    /// queue's size as a power of two.
    Initialise(u8, u8),
    /// A request in three descriptors, made available and notified: type, sector, sectors of data.
    Request(u8, u8, u8),
    /// The image fails or falls short next time.
    Fault(u8),
    /// Writes a vector's entry: which, bits (1 masked, 2 to nowhere), data.
    Entry(u8, u8, u8),
    /// Bits: 1 MSI-X Enable, 2 Function Mask, 4 Bus Master.
    Function(u8),
    /// Sets the window of `VIRTIO_PCI_CAP_PCI_CFG` to an offset and a width, and writes through it.
    Window(u16, u8, u32),
    /// The device says that its configuration changed.
    ConfigChanged,
}

/// The longest data of an access or a store.
const DATA: u8 = 33;

impl Op {
    /// The place of a field, for [`Op::Write`] and [`Op::Set`].
    ///
    /// # Panics
    /// If there is no such field.
    pub fn place(offset: u16) -> u8 {
        let place = FIELDS.iter().position(|(known, _)| *known == offset);
        place.and_then(|place| u8::try_from(place).ok()).expect("a field")
    }

    /// The next operation.
    pub fn take(input: &mut Input<'_>) -> Self {
        match input.u8() % 20 {
            0 => Self::Write(input.u8(), input.u32()),
            1 => Self::Set(input.u8(), input.u8()),
            2 => Self::WriteRaw(input.u16(), Self::data(input)),
            3 => Self::ReadRaw(input.u16(), input.u8()),
            4 => Self::WriteConfig(input.u16(), Self::data(input)),
            5 => Self::ReadConfig(input.u16(), input.u8()),
            6 => Self::Store(input.u16(), Self::data(input)),
            7 => Self::Descriptor(input.u8(), input.u16(), input.u16(), input.u8(), input.u8()),
            8 => Self::Offer(input.u8()),
            9 => Self::Turn,
            10 => Self::Finish,
            11 => Self::Stale,
            12 => Self::Restore,
            13 => Self::Initialise(input.u8(), input.u8()),
            14 => Self::Request(input.u8(), input.u8(), input.u8()),
            15 => Self::Fault(input.u8()),
            16 => Self::Entry(input.u8(), input.u8(), input.u8()),
            17 => Self::Function(input.u8()),
            18 => Self::Window(input.u16(), input.u8(), input.u32()),
            _ => Self::ConfigChanged,
        }
    }

    fn data(input: &mut Input<'_>) -> Vec<u8> {
        let len = input.u8() % DATA;
        input.bytes(len.into()).to_vec()
    }

    fn encode_data(tag: u8, at: u16, data: &[u8], bytes: &mut Vec<u8>) {
        Self::encode_at(tag, at, &[data.len() as u8], bytes);
        bytes.extend(data);
    }

    fn encode_at(tag: u8, at: u16, more: &[u8], bytes: &mut Vec<u8>) {
        bytes.push(tag);
        bytes.extend(at.to_le_bytes());
        bytes.extend(more);
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
            Self::ReadRaw(offset, len) => Self::encode_at(3, *offset, &[*len], bytes),
            Self::WriteConfig(offset, data) => Self::encode_data(4, *offset, data, bytes),
            Self::ReadConfig(offset, len) => Self::encode_at(5, *offset, &[*len], bytes),
            Self::Store(addr, data) => Self::encode_data(6, *addr, data, bytes),
            Self::Descriptor(index, addr, len, flags, next) => {
                bytes.extend([7, *index]);
                bytes.extend(addr.to_le_bytes());
                bytes.extend(len.to_le_bytes());
                bytes.extend([*flags, *next]);
            }
            Self::Offer(head) => bytes.extend([8, *head]),
            Self::Turn => bytes.push(9),
            Self::Finish => bytes.push(10),
            Self::Stale => bytes.push(11),
            Self::Restore => bytes.push(12),
            Self::Initialise(features, log) => bytes.extend([13, *features, *log]),
            Self::Request(kind, sector, sectors) => bytes.extend([14, *kind, *sector, *sectors]),
            Self::Fault(fault) => bytes.extend([15, *fault]),
            Self::Entry(vector, bits, data) => bytes.extend([16, *vector, *bits, *data]),
            Self::Function(bits) => bytes.extend([17, *bits]),
            Self::Window(offset, width, value) => {
                Self::encode_at(18, *offset, &[*width], bytes);
                bytes.extend(value.to_le_bytes());
            }
            Self::ConfigChanged => bytes.push(19),
        }
    }
}
