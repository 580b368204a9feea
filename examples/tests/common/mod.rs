//! What tests of disks have beside `xen_virtio_backend::fake`.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod block;
pub mod config;
pub mod host;
pub mod log;
pub mod one_disk;
pub mod pci_driver;
pub mod qemu;
pub mod running;
pub mod virtio_driver;
