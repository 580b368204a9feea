//! Accesses to the configuration space and to the BAR of a function, of any offset, width and value, in
//! any order, between them whatever a driver does to its rings, and a worker that serves them.
//!
//! An input is three bytes of setup ([`Case`]), then [`Op`]s until it ends.

mod driver;
mod guest;
mod op;
mod rules;

use crate::device::{ACCESS_PLATFORM, PREDICTED, Setup};
use crate::input::Input;
use guest::Guest;
pub use op::{FIELDS, Op};

/// How the first three bytes of an input are understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct Case {
    /// Bits: 1 read-only, 2 `ACCESS_PLATFORM`, 4 an engine that finishes in any order, 8 resets
    /// and stops of queues are done late, by [`Op::Finish`].
    pub flags: u8,
    /// The queue has at most 4 << (this mod 4) descriptors.
    pub log: u8,
    /// Of the engine that finishes in any order.
    pub seed: u8,
}

impl Case {
    /// The bytes that mean this case and these operations.
    pub fn encode(self, ops: &[Op]) -> Vec<u8> {
        let mut bytes = vec![self.flags, self.log, self.seed];
        ops.iter().for_each(|op| op.encode(&mut bytes));
        bytes
    }

    fn setup(self) -> Setup {
        Setup {
            read_only: self.flags & 1 != 0,
            access_platform: self.flags & 2 != 0,
            queue_size: 4 << (self.log % 4),
            reorder: (self.flags & 4 != 0).then_some(self.seed),
        }
    }
}

/// What became of an input, for the tests of the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests answered with `VIRTIO_BLK_S_OK`.
    pub ok: u64,
    /// Requests answered with something else.
    pub errors: u64,
    /// Resets that were done.
    pub resets: u32,
    /// Messages that were sent.
    pub messages: u64,
    /// Times that a function was made anew from its state.
    pub restores: u32,
    /// Times that the device gave up: a broken ring, or one that can't be served.
    pub given_up: u32,
}

/// Carries out one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    let case = Case { flags: input.u8(), log: input.u8(), seed: input.u8() };
    let mut features = PREDICTED;
    if case.flags & 2 != 0 {
        features |= ACCESS_PLATFORM;
    }
    let mut guest = Guest::new(case.setup(), features, case.flags & 8 != 0);
    while !input.is_empty() {
        guest.act(Op::take(&mut input));
    }
    guest.end()
}
