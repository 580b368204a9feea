//! What is counted of a piece of work: its steady state.

use crate::allocations;

/// Requests that are counted, and how many come before: buffers have grown then, and every page of
/// memory has been touched.
const REQUESTS: u32 = 3200;
const WARM_UP: u32 = 640;

/// Does `round`, of `depth` requests, again and again; says how often and what it allocated.
pub(crate) fn count(depth: u16, mut round: impl FnMut()) {
    let rounds = REQUESTS / u32::from(depth);
    for _ in 0..WARM_UP / u32::from(depth) {
        round();
    }
    // These lines are also how strace's log shows what lies between them.
    println!("counting");
    let before = allocations::count();
    gate_counted(rounds, &mut round);
    let allocations = allocations::count() - before;
    println!("requests {}", rounds * u32::from(depth));
    println!("allocations {allocations}");
}

/// Callgrind counts inside this function, which it finds by its name.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn gate_counted(rounds: u32, round: &mut dyn FnMut()) {
    for _ in 0..rounds {
        round();
    }
}
