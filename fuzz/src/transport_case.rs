//! What an input for a transport begins with.

use crate::device::{ACCESS_PLATFORM, PREDICTED, Setup};
use crate::input::Input;

/// How the first three bytes of an input are understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case {
    /// Bits: 1 read-only, 2 `ACCESS_PLATFORM`, 4 an engine that finishes in any order, 8 resets
    /// and stops of queues are done late, by the operation for that.
    pub flags: u8,
    /// The queue has at most 4 << (this mod 4) descriptors.
    pub log: u8,
    /// Of the engine that finishes in any order.
    pub seed: u8,
}

/// An operation, as it stands in an input.
pub trait Encode {
    /// Appends the bytes that mean it.
    fn encode(&self, bytes: &mut Vec<u8>);
}

impl Case {
    /// The bytes that mean this case and these operations.
    pub fn encode<O: Encode>(self, ops: &[O]) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.log, self.seed];
        ops.iter().for_each(|op| op.encode(&mut bytes));
        bytes
    }

    /// That of an input.
    pub fn take(input: &mut Input<'_>) -> Self {
        Self { flags: input.u8(), log: input.u8(), seed: input.u8() }
    }

    /// The disk.
    pub fn setup(self) -> Setup {
        Setup {
            read_only: self.flags & 1 != 0,
            access_platform: self.flags & 2 != 0,
            queue_size: 4 << (self.log % 4),
            reorder: (self.flags & 4 != 0).then_some(self.seed),
        }
    }

    /// The features that an initialisation takes.
    pub fn features(self) -> u64 {
        PREDICTED | if self.flags & 2 != 0 { ACCESS_PLATFORM } else { 0 }
    }

    /// Whether resets and stops are done late.
    pub fn is_late(self) -> bool {
        self.flags & 8 != 0
    }
}

/// Those of `features` that an initialisation takes with these bits.
pub fn wanted(features: u64, bits: u8) -> u64 {
    let optional = [(1, 1_u64 << 9), (2, 1 << 28), (4, 1 << 29)];
    let left_out = optional.iter().filter(|(bit, _)| bits & bit == 0);
    left_out.fold(features, |wanted, (_, feature)| wanted & !feature)
}
