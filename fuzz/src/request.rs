//! Arbitrary guest memory as rings, indirect tables, headers and data, served by a worker.
//!
//! An input is eight bytes of setup, of which the last two are the length of what follows: the
//! guest's memory from address 0 on. What comes after it are [patches](Patch) of three bytes each,
//! one made at each look-up of an address while the worker is at work.
//!
//! Without patches the outcome is compared with a [`reference`], byte for byte, as far as it can
//! tell: see [`Prediction`].

mod reference;
mod walk;

use std::collections::BTreeMap;

use virtio_dev::fake::NoQueues;
use virtio_dev::{QueueConfig, Status, WriteOutcome};
use virtio_mmio_dev::Register;

use crate::device::{self, DISK, Disk, PREDICTED, SERIAL, Serving, Setup, Transport};
use crate::input::Input;
use crate::memory::{Memory, Patch};
use reference::Prediction;

/// Where the rings are; everything else of memory is for what they name.
pub const DESC: u64 = 0;
/// The available ring.
pub const AVAIL: u64 = 0x200;
/// The used ring.
pub const USED: u64 = 0x1e00;
/// What memory beyond the input's holds.
pub const FILL: u8 = 0xa5;

/// No turn of a worker may look up more addresses: 32 requests of 32 buffers, several times over.
const LOOKUPS: u64 = 10_000;
/// No turn of a worker may answer more requests.
const BATCH: u64 = 256;

/// How the first six bytes of an input are understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case {
    /// Bits of the first byte: 1 read-only, 2 `EVENT_IDX`, 4 `INDIRECT_DESC`, 8 `FLUSH`, 16 an
    /// engine that finishes in any order, 32 faults of the image.
    pub flags: u8,
    /// The queue has 4 << (this mod 4) descriptors.
    pub log: u8,
    /// The ring's indices start here.
    pub start: u16,
    /// Of the engine that finishes in any order.
    pub seed: u8,
    /// Which fault, as [`Disk::inject`] takes it.
    pub fault: u8,
}

impl Case {
    fn take(input: &mut Input<'_>) -> Self {
        let (flags, log, start) = (input.u8(), input.u8(), input.u16());
        Self { flags, log, start, seed: input.u8(), fault: input.u8() }
    }

    /// The bytes that mean this case, over `memory` and with `patches`.
    pub fn encode(self, memory: &[u8], patches: &[Patch]) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.log];
        bytes.extend(self.start.to_le_bytes());
        bytes.extend([self.seed, self.fault]);
        bytes.extend((memory.len() as u16).to_le_bytes());
        bytes.extend(memory);
        for patch in patches {
            bytes.extend(patch.addr.to_le_bytes());
            bytes.push(patch.value);
        }
        bytes
    }

    fn has(self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    fn setup(self) -> Setup {
        Setup {
            read_only: self.has(1),
            access_platform: false,
            queue_size: 4 << (self.log % 4),
            reorder: self.has(16).then_some(self.seed),
        }
    }

    fn features(self) -> u64 {
        let mut features = PREDICTED;
        for (bit, feature) in [(2, device::EVENT_IDX), (4, device::INDIRECT), (8, device::FLUSH)] {
            if !self.has(bit) {
                features &= !feature;
            }
        }
        features
    }

    /// The queue as the driver set it up.
    pub fn queue(self) -> QueueConfig {
        QueueConfig {
            index: 0,
            size: self.setup().queue_size,
            size_max: self.setup().queue_size,
            desc_table: DESC,
            avail_ring: AVAIL,
            used_ring: USED,
            event_idx: self.has(2),
            indirect: self.has(4),
            next_avail: self.start,
            next_used: self.start,
        }
    }
}

/// What became of an input, for the tests of the seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests answered with `VIRTIO_BLK_S_OK`.
    pub ok: u64,
    /// Requests answered with something else.
    pub errors: u64,
    /// The ring was found broken.
    pub broken: bool,
    /// Everything was compared with the reference.
    pub predicted: bool,
}

/// Serves one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    let case = Case::take(&mut input);
    let len = input.u16();
    let memory = Memory::with(input.bytes(len.into()), FILL);
    memory.put(USED, &[0; 4 + 8 * 32 + 2]);
    let mut patches = Vec::new();
    while !input.is_empty() {
        patches.push(Patch { addr: input.u16(), value: input.u8() });
    }

    let disk = Disk::new(case.setup());
    let mut transport = disk.transport(|| {}).build().expect("a transport");
    go_live(&mut transport, case.features());
    let faulty = case.has(32);
    if faulty {
        disk.inject(case.fault);
    }
    let before = memory.snapshot();
    let prediction = patches.is_empty().then(|| {
        Prediction::make(&before, Disk::contents(), &case.queue(), case.has(1), SERIAL.as_bytes())
    });
    let Some(mut serving) = disk.serve(transport.control(), &case.queue(), &memory) else {
        panic!("rings that are in memory can't be served");
    };
    memory.set_patches(patches);
    serve(&memory, &mut serving);
    memory.set_patches(Vec::new());

    assert_eq!(serving.in_flight(), 0, "a request is neither answered nor in hand");
    let positions = serving.positions();
    assert_eq!(positions.next_avail, positions.next_used, "popped, but not answered");
    let needs_reset = transport.status().contains(Status::DEVICE_NEEDS_RESET);
    assert_eq!(serving.is_broken(), needs_reset);
    let (ok, errors) = serving.answers();
    let predicted = disk.with_bytes(|bytes| {
        assert_eq!(bytes.len(), DISK, "the disk has another size");
        assert!(!case.has(1) || bytes == Disk::contents(), "a read-only disk was written to");
        prediction.is_some_and(|prediction| {
            let outcome = Outcome {
                memory: memory.snapshot(),
                disk: bytes,
                used: used(&memory, &case.queue(), positions.next_used),
                broken: serving.is_broken(),
            };
            outcome.check(&prediction, &before, case.has(16), faulty)
        })
    });
    Report { ok, errors, broken: serving.is_broken(), predicted }
}

/// Does what a driver does to bring its device up, but for its queue.
pub(crate) fn go_live(transport: &mut Transport, features: u64) {
    for (register, value) in [
        (Register::Status, 3),
        (Register::DriverFeatures, features as u32),
        (Register::DriverFeaturesSel, 1),
        (Register::DriverFeatures, (features >> 32) as u32),
        (Register::Status, 11),
        (Register::Status, 15),
    ] {
        let outcome = transport.write(register.offset(), &value.to_le_bytes(), &mut NoQueues);
        assert_eq!(outcome, WriteOutcome::Done, "{register:?}, features {features:#x}");
    }
}

/// Runs the worker for as long as a driver can keep it busy with what is in memory already.
fn serve(memory: &Memory, serving: &mut Serving) {
    for _ in 0..64 {
        let before = memory.lookups();
        let (processed, more) = serving.run();
        assert!(memory.lookups() - before < LOOKUPS, "one turn doesn't end");
        assert!(processed <= BATCH, "{processed} requests in one turn");
        if !more {
            break;
        }
    }
    serving.drain();
}

/// The used entries between the start and `next_used`, by head: how often, and the last length.
fn used(memory: &Memory, queue: &QueueConfig, next_used: u16) -> BTreeMap<u32, (u32, u32)> {
    let mut used = BTreeMap::new();
    let mut index = queue.next_used;
    while index != next_used {
        let entry = USED + 4 + 8 * u64::from(index % queue.size);
        let (id, len) = (memory.get(entry), memory.get(entry + 4));
        let (count, last) = used.entry(u32::from_le_bytes(id)).or_insert((0, 0));
        *count += 1;
        *last = u32::from_le_bytes(len);
        index = index.wrapping_add(1);
    }
    used
}

/// What the worker left behind.
struct Outcome<'a> {
    memory: Vec<u8>,
    disk: &'a [u8],
    used: BTreeMap<u32, (u32, u32)>,
    broken: bool,
}

impl Outcome<'_> {
    /// Compares with what the reference says, as far as it can say it; gives whether that was all.
    fn check(&self, plan: &Prediction, before: &[u8], reordered: bool, faulty: bool) -> bool {
        if !plan.apart {
            return false;
        }
        assert_eq!(self.broken, plan.broken, "the ring is broken, or isn't");
        let heads: Vec<u32> = plan.answers.iter().map(|answer| answer.head.into()).collect();
        assert_eq!(self.used.len(), heads.len(), "{:?} came back of {heads:?}", self.used);
        for answer in &plan.answers {
            let found = self.used.get(&answer.head.into());
            let &(count, len) = found.unwrap_or_else(|| panic!("{answer:?} never came back"));
            assert_eq!(count, 1, "{answer:?} came back {count} times");
            // A fault of the image may make it less, and nothing may make it more.
            assert!(len <= answer.len, "{answer:?} claims {len} bytes");
            assert!(faulty || len == answer.len, "{answer:?} claims {len} bytes");
        }
        if let Some(at) = differs(self.disk, Disk::contents(), |at| plan.may_write(at)) {
            panic!("the disk changed at {at:#x}");
        }
        if let Some(at) = differs(&self.memory, before, |at| in_ring(at) || plan.may_fill(at)) {
            panic!("memory changed at {at:#x}");
        }
        if faulty || (reordered && plan.ordered) || !plan.exact {
            return false;
        }
        assert!(self.disk == plan.disk, "the disk holds something else");
        if let Some(at) = differs(&self.memory, &plan.memory, in_ring) {
            let (now, then) = (self.memory[at], plan.memory[at]);
            panic!("{at:#x} holds {now:#x} instead of {then:#x}");
        }
        true
    }
}

/// Whether the used ring is at `at`, which is compared entry by entry.
fn in_ring(at: usize) -> bool {
    (USED as usize..USED as usize + 4 + 8 * 32 + 2).contains(&at)
}

/// The first place where `a` and `b` differ, but for those that may.
fn differs(a: &[u8], b: &[u8], may: impl Fn(usize) -> bool) -> Option<usize> {
    // Mostly nothing differs; each step of a loop is one that the fuzzer watches.
    const PIECE: usize = 256;
    for (nth, (a, b)) in a.chunks(PIECE).zip(b.chunks(PIECE)).enumerate() {
        if a != b {
            let mut at = a.iter().zip(b).enumerate().map(|(at, (a, b))| (nth * PIECE + at, a != b));
            if let Some((at, _)) = at.find(|(at, differ)| *differ && !may(*at)) {
                return Some(at);
            }
        }
    }
    None
}
