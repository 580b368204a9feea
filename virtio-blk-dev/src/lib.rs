//! A virtio block device: requests, configuration, I/O engines and disk images.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod buffers;
mod config;
mod device;
mod engine;
mod error;
#[cfg(feature = "test-utils")]
pub mod fake;
mod features;
mod image;
mod inflight;
mod params;
mod request;
mod stats;
mod wait;
mod worker;

pub use buffers::{Sink, Source};
pub use config::{BlockConfig, SECTOR_SIZE, SERIAL_LEN, Serial};
pub use device::BlockDevice;
pub use engine::{Completion, Engine, Io, Operation, SyncEngine};
pub use error::{ConfigError, OpenError};
pub use features::Features;
pub use image::{Image, RawImage};
pub use params::Params;
pub use request::RequestKind;
pub use stats::{HostError, OpStats, Stats};
pub use worker::{Progress, Worker};

pub use {virtio_mmio_dev, vm_memory};
