//! A live split virtqueue, the device's side.

mod area;
mod batch;
mod chain;
mod collector;
mod descriptor;
mod events;
mod heads;
mod layout;
mod live;
mod rings;
mod state;
mod walk;
mod windows;

pub use batch::Batch;
pub use chain::{Buffer, Chain};
pub use events::QueueEvents;
pub use live::{LiveQueue, Positions};
pub use walk::RingFault;
pub use windows::PlainSlice;
