//! The device side of virtio-mmio: registers, status machine and live queues, no I/O of its own.
#![forbid(unsafe_code)]
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

mod device;
mod error;
pub mod feature;
mod interrupt;
mod process;
mod queue;
mod queue_config;
mod register;
mod state;
mod status;
mod transport;

pub use device::{SharedMemory, VirtioDevice};
pub use error::{Error, QueueError};
pub use interrupt::{Interrupt, IrqLine};
pub use process::process_queue;
pub use queue::{Buffer, Chain, LiveQueue, Positions, RingFault};
pub use queue_config::QueueConfig;
pub use register::{Access, Register};
pub use state::{QueueState, TransportState};
pub use status::Status;
pub use transport::{Effect, MmioTransport};

pub use virtio_queue;
pub use vm_memory;
