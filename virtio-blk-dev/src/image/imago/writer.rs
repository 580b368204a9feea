use std::io;
use std::ops::Range;

use ::imago::{FormatAccess, ShallowMapping, StorageExt};

use super::ImagoImage;
use super::storage::Layer;
use super::zeroing::Zeroing;

/// How a range of the disk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapped {
    /// In a cluster that only it uses.
    Own,
    /// In a shared or compressed cluster: a write allocates a new one.
    Shared,
    /// As an entry that says that it is zero.
    Zero,
    /// In the backing file.
    Backing,
    /// Nowhere: it reads as zeroes.
    Nowhere,
}

/// How the start of a range is mapped, and the length that is mapped in this way.
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

/// Writes to a qcow2 image. Operations that change its tables lock it exclusively. They allocate nothing
/// while the file's tables still refer to clusters that were freed, but flush first then (see
/// [`Journal`](super::journal::Journal)).
impl ImagoImage {
    /// Writes the start of `data`, and returns the number of bytes written.
    pub(super) fn write_some(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        match self.overwrite(data, offset)? {
            0 => self.allocate(data, offset),
            written => Ok(written),
        }
    }

    /// Writes into allocated clusters, up to the first range that isn't allocated.
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

    /// Allocates clusters and writes into them, as far as they are contiguous.
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
            // The rest may be mapped in another way.
            let mapping = access.prepare_data_mapping(offset, len, true);
            if journal.is_unsettled() {
                // The refcount table moved, and its old clusters may have been allocated at once. The
                // allocation is undone.
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

    /// Zeroes whole clusters.
    pub(super) fn zero_clusters(&self, mut whole: Range<u64>, how: Zeroing) -> io::Result<()> {
        let journal = self.journal()?;
        while !whole.is_empty() {
            let mut access = self.alone();
            let (mapped, len) = look(&access, &whole)?;
            let keeps = how == Zeroing::Keep;
            // An L2 table may have to be allocated for the new entry.
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
