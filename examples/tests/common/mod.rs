//! A host on the fakes, and the guests that try it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod config;
pub mod guest_kernel;
pub mod host;
pub mod log;
pub mod qemu;
pub mod ring_driver;
pub mod virtio_driver;
pub mod watchdog;
pub mod window;
