use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::block::{BLOCK_SIZE, Blocks, overlay};
use super::commit;
use super::header::Header;
use super::host::{HostFile, ReadAt};

/// The most blocks that wait to be written before a flush is needed: 8 MiB.
const MAX_BLOCKS: usize = (8 << 20) / BLOCK_SIZE;

/// Keeps the tables of a qcow2 image consistent in its file, so that a loss of power at any time does no harm.
///
/// imago writes an entry that refers to a cluster before that cluster's refcount, or without a flush between
/// the two, and reuses a cluster before the entry that referred to it is removed from the file. So its writes
/// to tables are kept here, while data is written to the file at once. At a flush, when imago's caches are
/// empty and no change is half done, they are written in the order given by [`commit`]. Until then the file's
/// tables are those of the last flush, and the clusters that they refer to are unchanged, except for data that
/// the guest wrote in place: a freed cluster is not reused before the next flush
/// ([`is_unsettled`](Self::is_unsettled)).
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<HostFile>,
    /// The data file, if there is one.
    data: OnceLock<Arc<HostFile>>,
    state: Mutex<State>,
    /// Held during a flush: there is one at a time.
    turn: Mutex<()>,
    /// A flush failed: the content of the file is not known.
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Blocks written since the last flush began.
    pending: Blocks,
    /// Blocks that the flush in progress writes.
    committing: Arc<Blocks>,
    /// How often clusters were freed, and how many of these times a flush has covered.
    freed: u64,
    settled: u64,
    /// Tables that the file's header still refers to though they were replaced, and when.
    replaced: Vec<(u64, Range<u64>)>,
}

/// The changes that a flush has to write.
#[derive(Debug)]
pub(super) struct Snapshot {
    blocks: Arc<Blocks>,
    /// The tables that they belong to; `None` if there are no blocks.
    kinds: Option<commit::Kinds>,
    /// How often clusters had been freed.
    freed: u64,
}

impl Journal {
    pub(super) fn new(file: Arc<HostFile>) -> Self {
        Self {
            file,
            data: OnceLock::new(),
            state: Mutex::default(),
            turn: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Sets the data file.
    pub(super) fn set_data_file(&self, file: Arc<HostFile>) {
        let _ = self.data.set(file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores `bytes`, to be written at the next flush.
    ///
    /// # Errors
    /// The host's, from reading the rest of the blocks. Also for a new place of the L1 table, which moves only
    /// when an image is resized; and for the place of a table that was replaced since the last flush.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let block_size = BLOCK_SIZE as u64;
        let first = offset.checked_div(block_size).unwrap_or(0);
        let head = offset.saturating_sub(first.saturating_mul(block_size)) as usize;
        let end = head.saturating_add(bytes.len());
        let mut old = vec![0; end.next_multiple_of(BLOCK_SIZE)];
        let mut state = self.state();
        state.may_write(offset, bytes.len() as u64)?;
        let view = View { file: &self.file, state: &state };
        view.read_at(&mut old, first.saturating_mul(block_size))?;
        let mut new = old.clone();
        if let Some(place) = new.get_mut(head..end) {
            place.copy_from_slice(bytes);
        }
        if first == 0 {
            state.note_header(&old, &new)?;
        }
        let size = self.file.size()?;
        let (old, new) = (old.as_chunks::<BLOCK_SIZE>().0, new.as_chunks::<BLOCK_SIZE>().0);
        for (number, (old, new)) in (first..).zip(old.iter().zip(new)) {
            let end = number.saturating_add(1).saturating_mul(block_size);
            // The file has to include each table completely.
            if old != new || end > size {
                state.pending.insert(number, Box::new(*new));
            }
        }
        Ok(())
    }

    /// Clusters are about to be freed that the file's tables still refer to.
    pub(super) fn free(&self) {
        let mut state = self.state();
        state.freed = state.freed.saturating_add(1);
    }

    /// Whether clusters were freed since the last flush, so that nothing may be allocated before the next.
    pub(super) fn is_unsettled(&self) -> bool {
        let state = self.state();
        state.freed != state.settled
    }

    /// Whether so much waits to be written that a flush is needed.
    pub(super) fn is_full(&self) -> bool {
        self.state().pending.len() > MAX_BLOCKS
    }

    /// Whether anything waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.state().pending.is_empty()
    }

    /// Fails for a write of data to the place of a table that was replaced since the last flush.
    pub(super) fn may_write_data(&self, offset: u64, len: u64) -> io::Result<()> {
        self.state().may_write(offset, len)
    }

    /// Flushes all data, and the tables as they are after `collect`, to stable storage. `collect` has to lock
    /// the image, have imago write back its caches, and take a [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// The host's. From then on every call fails, as the content of the file is not known.
    pub(super) fn flush(&self, collect: impl FnOnce() -> io::Result<Snapshot>) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier flush of the image failed"));
        }
        let result = collect().and_then(|snapshot| {
            let data = self.data.get().map(|file| &**file);
            match &snapshot.kinds {
                Some(kinds) => commit::write(&self.file, data, &snapshot.blocks, kinds)?,
                None => commit::flush(&self.file, data)?,
            }
            let mut state = self.state();
            state.committing = Arc::default();
            state.settled = snapshot.freed;
            state.replaced.retain(|(freed, _)| *freed > snapshot.freed);
            Ok(())
        });
        if result.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// The changes to write now. No change may be in progress.
    pub(super) fn snapshot(&self) -> io::Result<Snapshot> {
        let mut state = self.state();
        let mut kinds = None;
        if !state.pending.is_empty() {
            let found = commit::Kinds::of(&View { file: &self.file, state: &state })?;
            let mut blocks = std::mem::take(&mut state.pending);
            // A former table may be data now.
            blocks.retain(|number, _| found.of_block(*number).is_some());
            state.committing = Arc::new(blocks);
            kinds = Some(found);
        }
        Ok(Snapshot { blocks: Arc::clone(&state.committing), kinds, freed: state.freed })
    }
}

impl State {
    fn may_write(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        if self.replaced.iter().any(|(_, range)| offset < range.end && range.start < end) {
            return Err(io::Error::other("a table that was replaced is still in use"));
        }
        Ok(())
    }

    /// Processes a new header. A refcount table that it doesn't refer to any more is free for imago, but must
    /// not be overwritten in the file before the next flush.
    fn note_header(&mut self, old: &[u8], new: &[u8]) -> io::Result<()> {
        let headers = (Header::read(&old)?, Header::read(&new)?);
        let (Some(old), Some(new)) = headers else { return Ok(()) };
        if (old.l1_offset, old.l1_entries) != (new.l1_offset, new.l1_entries) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the L1 table can't be moved"));
        }
        if old.reftable_offset != new.reftable_offset {
            let len = old.reftable_entries()?.saturating_mul(8);
            let end = old.reftable_offset.saturating_add(len);
            self.freed = self.freed.saturating_add(1);
            self.replaced.push((self.freed, old.reftable_offset..end));
        }
        Ok(())
    }
}

/// The tables as imago has written them.
impl ReadAt for Journal {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        View { file: &self.file, state: &self.state() }.read_at(bytes, offset)
    }
}

/// The file, with the blocks that are to be written to it.
struct View<'a> {
    file: &'a HostFile,
    state: &'a State,
}

impl ReadAt for View<'_> {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)?;
        for blocks in [&*self.state.committing, &self.state.pending] {
            overlay(blocks, bytes, offset);
        }
        Ok(())
    }
}

/// Bytes in memory, zeroes beyond their end.
impl ReadAt for &[u8] {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.get(start..).unwrap_or_default();
        bytes.fill(0);
        for (byte, there) in bytes.iter_mut().zip(there) {
            *byte = *there;
        }
        Ok(())
    }
}
