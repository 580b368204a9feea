//! Write-back errors as Linux reports them: once for each open file description, to whoever asks first.
#![cfg(feature = "test-utils")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use virtio_blk_dev::{BlockConfig, Flusher, Image, Sink, Source, SyncEngine};

/// The write-back errors of a file so far.
type Errors = Arc<AtomicU64>;

/// A file in the page cache. Its open file descriptions are itself and its flushers.
struct Cached {
    errors: Errors,
    itself: Description,
    shares: bool,
}

/// How many of the errors were reported to this description.
struct Description(Errors, AtomicU64);

impl Description {
    fn of(errors: &Errors) -> Self {
        Self(Arc::clone(errors), AtomicU64::new(errors.load(Ordering::Relaxed)))
    }
}

impl Flusher for Description {
    fn flush(&self) -> io::Result<()> {
        let errors = self.0.load(Ordering::Relaxed);
        match self.1.swap(errors, Ordering::Relaxed) == errors {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }
}

impl Cached {
    fn new(shares: bool) -> (Self, Errors) {
        let errors = Errors::default();
        (Self { itself: Description::of(&errors), errors: Arc::clone(&errors), shares }, errors)
    }
}

impl Image for Cached {
    fn capacity(&self) -> u64 {
        1 << 20
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_vectored_at(&self, sink: Sink<'_>, _: u64) -> io::Result<usize> {
        Ok(sink.copy_from(&[0; 4096]))
    }

    fn write_vectored_at(&self, source: Source<'_>, _: u64) -> io::Result<usize> {
        Ok(source.iovecs().iter().map(|iovec| iovec.iov_len).sum())
    }

    fn flush(&self) -> io::Result<()> {
        self.itself.flush()
    }

    fn flusher(&self) -> Option<Box<dyn Flusher>> {
        (!self.shares).then(|| Box::new(Description::of(&self.errors)) as Box<dyn Flusher>)
    }
}

/// Two queues of one disk, of which neither knows yet what the other has met: what the two workers
/// share, in which the first failure is noted, is set only after the kernel has answered.
fn queues(image: Cached, features: u64) -> [Guest<SyncEngine<Cached>>; 2] {
    let image = Arc::new(image);
    [(); 2].map(|()| {
        let engine = SyncEngine::new(Arc::clone(&image));
        Guest::new(1 << 20, &BlockConfig::default(), features, engine)
    })
}

#[test]
fn a_write_back_error_reaches_every_queue_by_a_flush_of_its_own() {
    let (image, errors) = Cached::new(false);
    let mut queues = queues(image, F_ALL);
    for guest in &mut queues {
        assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    }
    errors.fetch_add(1, Ordering::Relaxed);
    for guest in &mut queues {
        assert_eq!(guest.request(FLUSH, 0, &[], 0).status, IOERR);
    }
}

#[test]
fn a_write_back_error_reaches_every_queue_by_a_durable_write_of_its_own() {
    let (image, errors) = Cached::new(false);
    let mut queues = queues(image, F_ALL & !F_FLUSH);
    errors.fetch_add(1, Ordering::Relaxed);
    for guest in &mut queues {
        assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
    }
}

#[test]
fn an_image_without_flushers_is_flushed_by_itself() {
    let (image, errors) = Cached::new(true);
    let [mut guest, _] = queues(image, F_ALL);
    errors.fetch_add(1, Ordering::Relaxed);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, IOERR);
}
