//! The parts of `vhost-user-blk`: the block device of `virtio-blk-dev` behind vhost-user.
//!
//! The frontend (QEMU, cloud-hypervisor, libblkio) keeps the registers; what is left is the data
//! plane. `server` waits at the socket, `conversation` takes the messages, `session` does what they
//! say, and `rings` hold what they tell of each `ring`; a `worker` is the thread that owns a running ring,
//! with nothing between it and the guest's memory, and sleeps on the kick descriptor itself.

pub mod args;
mod conversation;
pub mod device;
mod engine;
mod events;
mod memory;
mod refusal;
mod ring;
mod rings;
pub mod server;
mod session;
mod worker;
mod write_cache;
