use std::io;

use super::host::ReadAt;

/// Entries of a table, 32 MiB: what QEMU allows of an L1 table.
const MAX_ENTRIES: u64 = 4 << 20;

/// The offset in an entry of the L1, an L2 and the refcount table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// A backing file's format, and the external data file's name, among the header's extensions.
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// Bytes of another file's name, at most.
const MAX_NAME: u32 = 1023;

/// Bits of the incompatible features.
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;

/// A qcow2 header: the part of it that leads to the tables (QEMU's docs/interop/qcow2.txt).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    version: u32,
    backing_file_offset: u64,
    backing_file_size: u32,
    /// Of the extensions.
    header_length: u32,
    incompatible_features: u64,
    /// Bytes of the disk.
    pub(super) size: u64,
    pub(super) cluster_bits: u32,
    pub(super) crypt_method: u32,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
    pub(super) reftable_offset: u64,
    pub(super) reftable_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    /// Bits of a refcount are two to the power of it.
    pub(super) refcount_order: u32,
}

impl Header {
    /// `None` is a file that is no qcow2 image, or whose numbers nobody takes.
    pub(super) fn read(file: &impl ReadAt) -> io::Result<Option<Self>> {
        let mut bytes = [0; 104];
        file.read_at(&mut bytes, 0)?;
        let u32_at = |offset: usize| -> u32 {
            let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
            field.map_or(0, |field| u32::from_be_bytes(*field))
        };
        let u64_at = |offset: usize| -> u64 {
            let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
            field.map_or(0, |field| u64::from_be_bytes(*field))
        };
        let version = u32_at(4);
        let is_old = version == 2;
        let header = Self {
            version,
            backing_file_offset: u64_at(8),
            backing_file_size: u32_at(16),
            header_length: if is_old { 72 } else { u32_at(100) },
            incompatible_features: if is_old { 0 } else { u64_at(72) },
            size: u64_at(24),
            cluster_bits: u32_at(20),
            crypt_method: u32_at(32),
            l1_entries: u32_at(36),
            l1_offset: u64_at(40),
            reftable_offset: u64_at(48),
            reftable_clusters: u32_at(56),
            snapshots: u32_at(60),
            snapshots_offset: u64_at(64),
            refcount_order: if is_old { 4 } else { u32_at(96) },
        };
        let is_sound = (9..=21).contains(&header.cluster_bits) && header.refcount_order <= 6;
        Ok((u32_at(0) == 0x5146_49fb && is_sound).then_some(header))
    }

    pub(super) fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits.min(21)
    }

    /// Whether the disk's data is in another file, whose clusters have no refcounts.
    pub(super) fn has_external_data_file(&self) -> bool {
        self.incompatible_features & EXTERNAL_DATA_FILE != 0
    }

    /// Whether entries of L2 tables are twice as long. imago doesn't serve such images.
    pub(super) fn has_extended_l2(&self) -> bool {
        self.incompatible_features & EXTENDED_L2 != 0
    }

    pub(super) fn reftable_entries(&self) -> io::Result<u64> {
        let size = u64::from(self.reftable_clusters).checked_shl(self.cluster_bits);
        size.map(|size| size >> 3).ok_or_else(|| damaged("too large a", "refcount table"))
    }

    /// Refcounts in a refcount block, which is one cluster, as a power of two.
    pub(super) fn refblock_bits(&self) -> u32 {
        self.cluster_bits.saturating_add(3).saturating_sub(self.refcount_order)
    }

    pub(super) fn reftable(&self, file: &impl ReadAt) -> io::Result<Vec<u64>> {
        let entries = table(file, self.reftable_offset, self.reftable_entries()?)?;
        Ok(entries.into_iter().map(offset_of).collect())
    }

    /// The name of the backing file, relative to the image's directory, if it has one.
    pub(super) fn backing_file(&self, file: &impl ReadAt) -> io::Result<Option<String>> {
        if self.backing_file_offset == 0 {
            return Ok(None);
        }
        let end = self.backing_file_offset.saturating_add(self.backing_file_size.into());
        if self.backing_file_size > MAX_NAME || end > self.cluster_size() {
            return Err(damaged("an invalid place for the", "name of its backing file"));
        }
        let mut name = vec![0; self.backing_file_size as usize];
        file.read_at(&mut name, self.backing_file_offset)?;
        let name = String::from_utf8(name);
        name.map(Some).map_err(|_| damaged("an invalid", "name of its backing file"))
    }

    /// The format of the backing file, if the header states it. Version 2 has this extension, too,
    /// though its specification knows no extensions: QEMU writes and reads it.
    pub(super) fn backing_format(&self, file: &impl ReadAt) -> io::Result<Option<String>> {
        self.extension(file, BACKING_FORMAT, 64)
    }

    /// The name of the external data file, relative to the image's directory, if the header states it.
    pub(super) fn data_file(&self, file: &impl ReadAt) -> io::Result<Option<String>> {
        self.extension(file, DATA_FILE_NAME, MAX_NAME)
    }

    /// The text of an extension, if it is one of at most `max_len` bytes.
    fn extension(
        &self,
        file: &impl ReadAt,
        wanted: u32,
        max_len: u32,
    ) -> io::Result<Option<String>> {
        let end = match self.backing_file_offset {
            0 => self.cluster_size(),
            offset => offset.min(self.cluster_size()),
        };
        let mut offset = u64::from(self.header_length);
        while offset.saturating_add(8) <= end {
            let mut fields = [0; 8];
            file.read_at(&mut fields, offset)?;
            let [kind, len] = [fields.first_chunk(), fields.last_chunk()]
                .map(|field| field.map_or(0, |field| u32::from_be_bytes(*field)));
            offset = offset.saturating_add(8);
            match kind {
                0 => break,
                kind if kind == wanted && len <= max_len => {
                    let mut text = vec![0; len as usize];
                    file.read_at(&mut text, offset)?;
                    return Ok(String::from_utf8(text).ok());
                }
                _ => offset = offset.saturating_add(u64::from(len).next_multiple_of(8)),
            }
        }
        Ok(None)
    }
}

/// The offset in an entry of a table.
pub(super) fn offset_of(entry: u64) -> u64 {
    entry & OFFSET
}

/// The entries of a table.
pub(super) fn table(file: &impl ReadAt, offset: u64, entries: u64) -> io::Result<Vec<u64>> {
    if entries > MAX_ENTRIES {
        return Err(damaged("too large a", "table"));
    }
    let mut bytes = vec![0; usize::try_from(entries).unwrap_or(0).saturating_mul(8)];
    file.read_at(&mut bytes, offset)?;
    let (chunks, _) = bytes.as_chunks();
    Ok(chunks.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

pub(super) fn damaged(finding: &str, what: &str) -> io::Error {
    let message =
        format!("it is damaged, with {finding} {what}; repair it with `qemu-img check -r all`");
    io::Error::new(io::ErrorKind::InvalidData, message)
}
