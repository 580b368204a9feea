//! One test for each rule of virtio 1.2 that a block device can break, named after its clause.
#![cfg(feature = "test-utils")]

mod cache;
#[path = "../common/mod.rs"]
mod common;
mod config;
mod ranges;
mod requests;
mod rings;

use std::sync::Arc;

use common::{Answer, F_ALL, Guest, guest};
use virtio_blk_dev::BlockConfig;
use virtio_blk_dev::fake::FakeImage;

fn writable(sectors: u64) -> (Guest, Arc<FakeImage>) {
    guest(sectors, &BlockConfig::default(), F_ALL)
}

fn answer(status: u8, len: u32) -> Answer {
    Answer { status, len, data: Vec::new() }
}
