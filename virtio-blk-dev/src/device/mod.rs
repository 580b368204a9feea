//! The control plane: features and configuration.

mod block_device;
mod config;
mod durability;
mod features;
mod limits;
mod params;

pub use block_device::BlockDevice;
pub use config::{BlockConfig, SECTOR_SIZE, SERIAL_LEN, Serial};
pub use durability::Durability;
pub use features::Features;
pub use limits::{Limits, RangeLimits, ZeroesLimits};
pub(crate) use params::Live;
pub use params::Params;
