//! The parts of `xen-virtio-blk`, a virtio block backend for Xen.
//!
//! [`disks`] is what `xen-virtio-backend` is to know of disks; [`disk`] has a disk's registers, `disk_queues`
//! its queues; `worker_thread` serves one; [`settings`] say how, [`storage`] is on what; [`figures`] say what has been done, [`metrics`] to
//! Prometheus, and [`operate`] to operators.

pub mod args;
mod block_config;
pub mod check;
mod device_tree;
pub mod disk;
mod disk_name;
mod disk_queues;
pub mod disk_state;
pub mod disks;
pub mod engine_kind;
pub mod figures;
mod identity;
mod live_figures;
pub mod metrics;
pub mod nodes;
pub mod operate;
pub mod order;
mod processors;
pub mod rate;
pub mod settings;
pub mod storage;
mod worker_thread;

pub use device_tree::device_tree;
