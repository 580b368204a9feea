//! What the fuzz targets do with their bytes: each module's `run` carries out one input and panics
//! where an invariant doesn't hold. Without a fuzzer, `cargo test` runs the seeds through them.
//!
//! How an input is made of bytes is each module's to say, and the seeds in `tests/` are written
//! with the same words.

mod calls;
pub mod client;
pub mod device;
mod driver_ring;
pub mod input;
pub mod memory;
pub mod mmio;
pub mod pci;
pub mod qcow2;
pub mod request;
pub mod transport_case;
pub mod vhost_user;
pub mod xenstore;

// What the binary makes of a disk's nodes. Its own file, as a build of the whole binary would
// have the fuzzer watch an argument parser and a logger.
#[path = "../../examples/xen-virtio-blk/nodes.rs"]
pub mod nodes;
