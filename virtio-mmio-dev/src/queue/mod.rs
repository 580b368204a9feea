//! A live split virtqueue, the device's side.

mod area;
mod chain;
mod events;
mod layout;
mod live;
mod walk;

pub use chain::{Buffer, Chain};
pub use events::QueueEvents;
pub use live::{LiveQueue, Positions};
pub use walk::RingFault;
