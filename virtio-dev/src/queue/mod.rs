//! A live split virtqueue, the device's side.

mod area;
mod batch;
mod bulk;
mod chain;
mod collector;
mod descriptor;
mod events;
mod fault;
mod heads;
mod layout;
mod live;
mod look_ahead;
mod region_cache;
mod rings;
mod state;
mod walk;

pub use batch::Batch;
pub use bulk::{BulkMemory, Released};
pub use chain::{Buffer, Chain};
pub use events::QueueEvents;
pub use fault::RingFault;
pub use live::{LiveQueue, Positions};
pub use region_cache::PlainSlice;
