//! What the benches and the comparison share: a guest's driver of one queue, reduced to stores and
//! loads.

mod driver;
mod queue_layout;
mod shared;

pub use driver::{Driver, Failed, Kind, Request};
pub use queue_layout::QueueLayout;

/// Where a guest's RAM starts (`GUEST_RAM0_BASE`, xen/include/public/arch-arm.h).
pub const RAM: u64 = 0x4000_0000;
