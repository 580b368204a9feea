//! The parts of `xen-virtio-blk`, a virtio block backend for Xen.
//!
//! [`backend`] follows the toolstack in xenstore; [`guest`] and `service` answer one guest; [`disk`] joins
//! registers and queues; `worker_thread` serves one queue; [`settings`] say how, [`storage`] is on what;
//! [`figures`] say what has been done, [`metrics`] to Prometheus. All of it runs over a [`platform`]: Xen, or
//! the fakes of the `xen-*` crates.

pub mod args;
mod attach;
pub mod backend;
mod block_config;
pub mod check;
pub mod contact;
pub mod daemon;
pub mod device_id;
pub mod disk;
mod error_nodes;
pub mod figures;
pub mod guest;
pub mod guest_memory;
mod guests;
mod identity;
mod listing;
pub mod map_budget;
pub mod metrics;
pub mod nodes;
pub mod notices;
mod patience;
pub mod platform;
pub mod rate;
mod retry;
pub mod run_dir;
mod service;
pub mod settings;
pub mod storage;
mod unmapper;
mod worker_thread;
