//! One test for each rule of virtio 1.2 that a block device can break, named after its clause.
#![cfg(feature = "test-utils")]

mod cache;
#[path = "../common/mod.rs"]
mod common;
#[cfg(not(miri))] // Bytes of our own, and minutes.
mod config;
mod ranges;
mod requests;
mod rings;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use common::{Answer, F_ALL, Guest, guest};
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{BlockConfig, Completion, Engine, Io, SyncEngine};

fn writable(sectors: u64) -> (Guest, Arc<FakeImage>) {
    guest(sectors, &BlockConfig::default(), F_ALL)
}

fn answer(status: u8, len: u32) -> Answer {
    Answer { status, len, data: Vec::new() }
}

/// An engine before which something happens with each operation that it is given.
struct Hooked {
    inner: SyncEngine<FakeImage>,
    hook: Box<dyn FnMut() + Send>,
}

impl Engine for Hooked {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        (self.hook)();
        self.inner.submit(io)
    }

    fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn in_flight(&self) -> usize {
        0
    }
}
