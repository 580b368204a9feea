//! The control plane: features and configuration.

mod block_device;
mod config;
mod config_space;
mod durability;
mod error;
mod features;
mod limits;
mod live;
mod params;
mod serial;

pub use block_device::BlockDevice;
pub use config::BlockConfig;
pub use durability::Durability;
pub use error::ConfigError;
pub use features::Features;
pub use limits::{Limits, RangeLimits, ZeroesLimits};
pub(crate) use live::Live;
pub use params::Params;
pub use serial::{SERIAL_LEN, Serial};
