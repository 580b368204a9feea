use std::io;
use std::ops::Range;

use ::imago::{FormatAccess, ShallowMapping, StorageExt};

use super::ImagoImage;
use super::storage::Layer;
use super::zeroing::Zeroing;

/// How a part of a disk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapped {
    /// In a cluster of its own.
    Own,
    /// In a cluster that it shares, or compressed: a write gives it another one.
    Shared,
    /// As the entry that it is zeroes.
    Zero,
    /// Not here: in the backing file.
    Backing,
    /// Not at all: it is zeroes.
    Nowhere,
}

/// How the beginning of a range is mapped, and how much of it is mapped so.
fn look(access: &FormatAccess<Layer>, range: &Range<u64>) -> io::Result<(Mapped, u64)> {
    let len = range.end.saturating_sub(range.start);
    let (mapping, len) = access.get_shallow_mapping(range.start, len)?;
    let mapped = match mapping {
        ShallowMapping::Raw { writable: true, .. } => Mapped::Own,
        ShallowMapping::Raw { .. } | ShallowMapping::Special { .. } => Mapped::Shared,
        ShallowMapping::Zero { explicit: true, .. } => Mapped::Zero,
        ShallowMapping::Zero { .. } => Mapped::Nowhere,
        ShallowMapping::Indirect { .. } => Mapped::Backing,
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    };
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((mapped, len))
}

/// Changes of a qcow2 image. What changes its tables has the image for itself, does one thing at a
/// time, and allocates nothing while the file still refers to clusters that were set free: the next
/// flush comes first then (see [`Journal`](super::journal::Journal)).
impl ImagoImage {
    /// Writes the beginning of `data`, and returns how much that was.
    pub(super) fn write_some(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        match self.overwrite(data, offset)? {
            0 => self.allocate(data, offset),
            written => Ok(written),
        }
    }

    /// Writes into clusters that are there, up to the first that isn't.
    fn overwrite(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let access = self.shared();
        let mut done = 0usize;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let offset = offset.saturating_add(done as u64);
            let (mapping, len) = access.get_shallow_mapping(offset, rest.len() as u64)?;
            let ShallowMapping::Raw { storage, offset, writable: true, .. } = mapping else {
                break;
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let piece = rest.get(..len).unwrap_or(rest);
            storage.write(piece, offset)?;
            done = done.saturating_add(piece.len());
        }
        Ok(done)
    }

    /// Writes into clusters that are allocated for it, as far as they lie side by side.
    fn allocate(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let journal = self.journal()?;
        let range = offset..offset.saturating_add(data.len() as u64);
        loop {
            let access = self.alone();
            if journal.is_unsettled() {
                drop(access);
                self.flush_tables()?;
                continue;
            }
            let (mapped, len) = look(&access, &range)?;
            // What follows may be mapped in another way.
            let mapping = access.prepare_data_mapping(offset, len, true);
            if journal.is_unsettled() {
                // The refcount table moved, and its old place may have been handed out at once. What
                // was allocated is given back.
                drop(mapping);
                drop(access);
                self.flush_tables()?;
                continue;
            }
            let mapping = mapping?;
            let len = usize::try_from(mapping.length()).unwrap_or(usize::MAX);
            let piece = data.get(..len).unwrap_or(data);
            if mapped == Mapped::Shared {
                journal.free();
            }
            mapping.storage().write(piece, mapping.offset())?;
            access.commit_data_mapping(mapping)?;
            drop(access);
            if journal.is_full() {
                self.flush_tables()?;
            }
            return Ok(piece.len());
        }
    }

    /// Makes whole clusters zeroes.
    pub(super) fn zero_clusters(&self, mut whole: Range<u64>, how: Zeroing) -> io::Result<()> {
        let journal = self.journal()?;
        while !whole.is_empty() {
            let mut access = self.alone();
            let (mapped, len) = look(&access, &whole)?;
            let keeps = how == Zeroing::Keep;
            // A table of entries may have to be allocated for the new one.
            let (allocates, frees) = match mapped {
                Mapped::Own => (false, !keeps),
                Mapped::Shared => (true, true),
                Mapped::Zero => (true, !keeps),
                Mapped::Backing => (true, false),
                Mapped::Nowhere => (false, false),
            };
            let is_done = match mapped {
                Mapped::Nowhere => true,
                Mapped::Zero => keeps,
                Mapped::Backing => how == Zeroing::Discard,
                Mapped::Own | Mapped::Shared => false,
            };
            if !is_done {
                if allocates && journal.is_unsettled() {
                    drop(access);
                    self.flush_tables()?;
                    continue;
                }
                if frees {
                    journal.free();
                }
                match keeps {
                    true => access.write_zeroes(whole.start, len)?,
                    false => access.discard_to_zero(whole.start, len)?,
                }
            }
            drop(access);
            whole.start = whole.start.saturating_add(len);
        }
        if journal.is_full() { self.flush_tables() } else { Ok(()) }
    }
}
