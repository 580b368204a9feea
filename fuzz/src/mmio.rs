//! Register accesses of any offset, width and value, in any order, between them whatever a driver
//! does to its rings, and a worker that serves them.
//!
//! An input is three bytes of setup ([`Case`]), then [`Op`]s until it ends.

mod guest;
mod op;
mod rules;

use crate::input::Input;
pub use crate::transport_case::Case;
use guest::Guest;
pub use op::Op;

/// What became of an input, for the tests of the seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests answered with `VIRTIO_BLK_S_OK`.
    pub ok: u64,
    /// Requests answered with something else.
    pub errors: u64,
    /// Resets that were answered.
    pub resets: u32,
    /// Queues that were stopped by the driver.
    pub stops: u32,
    /// Times that a transport was made anew from its state.
    pub restores: u32,
    /// Times that the device gave up: a broken ring, or one that can't be served.
    pub given_up: u32,
}

/// Carries out one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    let case = Case::take(&mut input);
    let mut guest = Guest::new(case.setup(), case.features(), case.is_late());
    while !input.is_empty() {
        guest.act(Op::take(&mut input));
    }
    guest.end()
}
