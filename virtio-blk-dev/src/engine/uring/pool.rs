use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::aligned_buffer::AlignedBuffer;

/// Bytes of a bounce buffer, and the most that one transfer through it moves: longer operations take several
/// transfers.
pub(super) const BUFFER_SIZE: usize = 128 << 10;

/// The greatest alignment that direct I/O needs of memory: a page.
const PAGE: usize = 4096;

/// The bounce buffers of [`UringEngine`](super::UringEngine)s, for guest memory that direct I/O doesn't take.
///
/// A buffer is allocated when it is first needed, and kept for later use. An engine that has none may always
/// take one beyond the limit, so that each engine makes progress, however many there are: a pool never
/// has more than its limit and one buffer of 128 KiB for each engine.
///
/// A clone is the same pool. [`share`](Self::share) makes a pool, for example of one disk, that takes its
/// buffers from another, for example one that limits all disks of a process.
#[derive(Clone, Debug)]
pub struct BouncePool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// The most buffers that may be taken.
    limit: usize,
    taken: AtomicUsize,
    /// Buffers that aren't taken. Used only in a pool without a parent.
    idle: Mutex<Vec<AlignedBuffer>>,
    parent: Option<BouncePool>,
}

impl BouncePool {
    /// Enough for 64 requests of 128 KiB in flight.
    pub const DISK: usize = 8 << 20;

    /// A pool of at most `bytes`, none of which is allocated yet.
    pub fn new(bytes: usize) -> Self {
        Self::with(bytes, None)
    }

    /// A pool of at most `bytes` that come out of this one.
    #[must_use]
    pub fn share(&self, bytes: usize) -> Self {
        Self::with(bytes, Some(self.clone()))
    }

    fn with(bytes: usize, parent: Option<Self>) -> Self {
        let (taken, idle) = (AtomicUsize::new(0), Mutex::default());
        Self(Arc::new(Pool { limit: bytes / BUFFER_SIZE, taken, idle, parent }))
    }

    /// Bytes of the buffers that engines have at present.
    pub fn in_use(&self) -> usize {
        self.0.taken.load(Ordering::Relaxed).saturating_mul(BUFFER_SIZE)
    }

    /// A buffer, if the limits allow one and it can be allocated.
    pub(super) fn take(&self) -> Option<Buffer> {
        self.buffer(self.reserve()?)
    }

    /// A buffer beyond the limits, for an engine that has none. `None` if it can't be allocated.
    pub(super) fn take_beyond(&self) -> Option<Buffer> {
        for pool in self.upward() {
            pool.0.taken.fetch_add(1, Ordering::Relaxed);
        }
        self.buffer(Quota(self.clone()))
    }

    /// Returns a buffer to the pool.
    pub(super) fn give_back(&self, buffer: Buffer) {
        let Buffer { memory, quota } = buffer;
        self.root().idle().push(memory);
        drop(quota);
    }

    /// Whether a limit is reached, so that another engine may be waiting for a buffer.
    pub(super) fn is_exhausted(&self) -> bool {
        self.upward().any(|Self(pool)| pool.taken.load(Ordering::Relaxed) >= pool.limit)
    }

    fn buffer(&self, quota: Quota) -> Option<Buffer> {
        let idle = self.root().idle().pop();
        let memory = idle.or_else(|| AlignedBuffer::new(BUFFER_SIZE, PAGE).ok())?;
        Some(Buffer { memory, quota })
    }

    fn reserve(&self) -> Option<Quota> {
        for (done, Self(pool)) in self.upward().enumerate() {
            let more = |taken: usize| (taken < pool.limit).then(|| taken.saturating_add(1));
            if pool.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                for Self(pool) in self.upward().take(done) {
                    pool.taken.fetch_sub(1, Ordering::Relaxed);
                }
                return None;
            }
        }
        Some(Quota(self.clone()))
    }

    /// This pool, and its parents.
    fn upward(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |pool| pool.0.parent.as_ref())
    }

    fn root(&self) -> &Pool {
        let Self(pool) = self.upward().last().unwrap_or(self);
        pool
    }
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    /// Frees the idle buffers when a disk is removed. Others allocate what they need.
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            parent.root().idle().clear();
        }
    }
}

/// A buffer taken from a pool.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: AlignedBuffer,
    quota: Quota,
}

impl Buffer {
    pub(super) fn start(&self) -> NonNull<u8> {
        self.memory.start()
    }

    /// Its memory. While the kernel uses the buffer, it is in a slot, and nothing calls this.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.memory.bytes()
    }
}

/// The share that one buffer takes of the limits of a pool and its parents.
#[derive(Debug)]
struct Quota(BouncePool);

impl Drop for Quota {
    fn drop(&mut self) {
        for BouncePool(pool) in self.0.upward() {
            pool.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allocated_before_it_is_needed_and_then_used_again() {
        let pool = BouncePool::new(BouncePool::DISK);
        assert_eq!((pool.in_use(), pool.0.idle().len()), (0, 0));
        let mut buffer = pool.take().unwrap();
        assert!(buffer.start().addr().get().is_multiple_of(PAGE));
        assert_eq!((pool.in_use(), buffer.bytes().len()), (BUFFER_SIZE, BUFFER_SIZE));
        let start = buffer.start();
        pool.give_back(buffer);
        assert_eq!((pool.in_use(), pool.0.idle().len()), (0, 1));
        assert_eq!(pool.take().unwrap().start(), start);
        // One that was dropped is gone, and its place is free.
        assert_eq!((pool.in_use(), pool.0.idle().len()), (0, 0));
    }

    #[test]
    fn a_disk_has_its_own_limit_and_all_of_them_have_one_together() {
        let all = BouncePool::new(5 * BUFFER_SIZE);
        let disks = [all.share(3 * BUFFER_SIZE), all.share(3 * BUFFER_SIZE)];
        let mut buffers: Vec<_> = std::iter::from_fn(|| disks[0].take()).collect();
        assert_eq!(buffers.len(), 3);
        assert!(disks[0].is_exhausted() && !disks[1].is_exhausted());
        buffers.extend(std::iter::from_fn(|| disks[1].take()));
        assert_eq!((buffers.len(), all.in_use()), (5, 5 * BUFFER_SIZE));
        assert_eq!(disks.each_ref().map(BouncePool::in_use), [3 * BUFFER_SIZE, 2 * BUFFER_SIZE]);
        assert!(disks[1].is_exhausted(), "there is room in its own, and none above");
        let beyond = disks[1].take_beyond().unwrap();
        assert_eq!(all.in_use(), 6 * BUFFER_SIZE);
        drop(beyond);
        disks[0].give_back(buffers.remove(0));
        assert!(disks[1].take().is_some(), "the place of another disk's");
        drop(buffers);
        assert_eq!(all.in_use(), 0);
    }

    #[test]
    fn a_disk_that_goes_leaves_no_idle_memory() {
        let all = BouncePool::new(4 * BUFFER_SIZE);
        let disk = all.share(4 * BUFFER_SIZE);
        let buffer = disk.take().unwrap();
        disk.give_back(buffer);
        assert_eq!(all.0.idle().len(), 1);
        drop(disk);
        assert_eq!(all.0.idle().len(), 0);
    }
}
