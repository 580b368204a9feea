//! What the benches share: a guest's driver of one queue, reduced to stores and loads, and a device
//! to drive.

mod driver;

pub use driver::{DATA_LEN, Driver, Kind, RAM, RAM_LEN};
