use std::collections::BTreeMap;
use std::io;

use super::header::{Header, damaged, offset_of, table};
use super::host::{HostFile, ReadAt};
use super::refcounts::{Refcounts, Users};

/// Flags of the entries of L1 and L2 tables.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reserved bits of an entry of an L2 table that isn't of compressed data.
const RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// Snapshots of an image, at most: what QEMU allows.
const MAX_SNAPSHOTS: u32 = 65_536;

/// Refuses a qcow2 image that imago doesn't: one that is encrypted, and, to be written, one that is
/// not consistent. imago hands out what counts as free: a cluster that is in use nevertheless would
/// get a second user, and what the first one flushed would be lost.
///
/// So every cluster that is in use lies in the file and has a refcount of no less than its uses; a
/// cluster that is written in place has one use; and a table's cluster is used as that table only,
/// since a table's blocks wait in memory while data is written at once. A cluster that counts as in
/// use and isn't does no harm.
///
/// Each table is read once, and not at all if it is a hole: a small file may have holes for many
/// tables. Memory is needed for the refcount blocks of the clusters in the file, and
/// for the places of the L2 tables.
pub(super) fn check(file: &HostFile, header: &Header, read_only: bool) -> io::Result<()> {
    if header.crypt_method != 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is encrypted"));
    }
    // imago refuses the latter itself.
    if read_only || header.has_extended_l2() {
        return Ok(());
    }
    let cluster = header.cluster_size();
    let reftable_entries = header.reftable_entries()?;
    let refblocks = table(file, header.reftable_offset, reftable_entries)?;
    if refblocks
        .iter()
        .any(|entry| offset_of(*entry) != *entry || entry & cluster.saturating_sub(1) != 0)
    {
        return Err(damaged("an invalid entry in its", "refcount table"));
    }
    let refcounts = Refcounts::new(file, header, refblocks.clone())?;
    let mut check = Check { file, header, refcounts, l2_tables: BTreeMap::new() };
    check.own(0, cluster, "header")?;
    check.own(header.reftable_offset, reftable_entries.saturating_mul(8), "refcount table")?;
    let l1_size = u64::from(header.l1_entries).saturating_mul(8);
    check.own(header.l1_offset, l1_size, "L1 table")?;
    for offset in refblocks.into_iter().filter(|offset| *offset != 0) {
        check.own(offset, cluster, "refcount block")?;
    }
    let covered = (cluster >> 3).saturating_mul(cluster).saturating_mul(header.l1_entries.into());
    if covered < header.size {
        return Err(damaged("too small an", "L1 table"));
    }
    check.note_l2_tables(header.l1_offset, header.l1_entries, true)?;
    check.note_snapshots()?;
    check.check_l2_tables()
}

struct Check<'a> {
    file: &'a HostFile,
    header: &'a Header,
    refcounts: Refcounts<'a>,
    l2_tables: BTreeMap<u64, L2Table>,
}

/// What refers to an L2 table.
#[derive(Clone, Copy, Debug, Default)]
struct L2Table {
    /// Entries of L1 tables.
    users: u64,
    /// The entry of the disk's L1 table, as the disk is now, and whether it writes the table where
    /// it lies.
    active: Option<(u64, bool)>,
}

impl Check<'_> {
    /// The L2 tables that an L1 table refers to. What the disk is now is `active`; a snapshot's
    /// tables are not written, and their flags say nothing of who else uses a cluster.
    fn note_l2_tables(&mut self, l1_offset: u64, entries: u32, active: bool) -> io::Result<()> {
        for (index, entry) in (0..).zip(self.table(l1_offset, entries.into())?) {
            let offset = offset_of(entry);
            if offset == 0 {
                continue;
            }
            if !self.is_aligned(offset) {
                return Err(damaged("an invalid entry in its", "L1 table"));
            }
            self.refcounts.must_be_in_file(offset, "L2 table")?;
            let l2_table = self.l2_tables.entry(offset).or_default();
            l2_table.users = l2_table.users.saturating_add(1);
            if active && l2_table.active.replace((index, entry & COPIED != 0)).is_some() {
                return Err(damaged("another use for its", "L2 table"));
            }
        }
        Ok(())
    }

    fn note_snapshots(&mut self) -> io::Result<()> {
        if self.header.snapshots > MAX_SNAPSHOTS {
            return Err(damaged("too many", "snapshots"));
        }
        let start = self.header.snapshots_offset;
        let mut offset = start;
        for _ in 0..self.header.snapshots {
            let mut fields = [0; 40];
            self.file.read_at(&mut fields, offset)?;
            let (l1_offset, rest) = fields.split_first_chunk().unwrap_or((&[0; 8], &[]));
            let (l1_entries, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
            let (id_len, rest) = rest.split_first_chunk().unwrap_or((&[0; 2], &[]));
            let (name_len, _) = rest.split_first_chunk().unwrap_or((&[0; 2], &[]));
            let extra_len = fields.last_chunk().map_or(0, |field| u32::from_be_bytes(*field));
            let l1_entries = u32::from_be_bytes(*l1_entries);
            let l1_offset = u64::from_be_bytes(*l1_offset);
            let l1_size = u64::from(l1_entries).saturating_mul(8);
            self.own(l1_offset, l1_size, "L1 table of a snapshot")?;
            self.note_l2_tables(l1_offset, l1_entries, false)?;
            let lens = [u16::from_be_bytes(*id_len), u16::from_be_bytes(*name_len)].map(u64::from);
            let len = lens.into_iter().fold(u64::from(extra_len), u64::saturating_add);
            let next = offset.saturating_add(40).saturating_add(len);
            offset = next.checked_next_multiple_of(8).unwrap_or(next);
        }
        self.own(start, offset.saturating_sub(start), "snapshot table")
    }

    /// The L2 tables, and what they refer to.
    fn check_l2_tables(&mut self) -> io::Result<()> {
        let cluster = self.header.cluster_size();
        for (offset, l2_table) in std::mem::take(&mut self.l2_tables) {
            let users = match l2_table.active {
                Some((_, true)) if l2_table.users > 1 => {
                    return Err(damaged("another use for its", "L2 table"));
                }
                _ => Users::Several(l2_table.users),
            };
            self.refcounts.claim(offset, cluster, users, "L2 table")?;
            for (index, entry) in (0..).zip(self.table(offset, cluster >> 3)?) {
                self.check_entry(index, entry, l2_table)?;
            }
        }
        Ok(())
    }

    fn check_entry(&mut self, index: u64, entry: u64, l2_table: L2Table) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let invalid = || damaged("an invalid entry in an", "L2 table");
        if entry & COMPRESSED != 0 {
            if entry & COPIED != 0 || self.header.has_external_data_file() {
                return Err(invalid());
            }
            // An offset in bytes, and above it how many sectors follow its own.
            let offset_bits = 62u32.saturating_sub(bits.saturating_sub(8));
            let offset = entry & !(u64::MAX << offset_bits);
            let sectors = (entry & !(u64::MAX << 62)) >> offset_bits;
            let len = sectors.saturating_add(1).saturating_mul(512).saturating_sub(offset & 511);
            let users = Users::Shared(l2_table.users);
            return self.refcounts.claim(offset, len, users, "compressed data");
        }
        let offset = offset_of(entry);
        if entry & RESERVED != 0 || !self.is_aligned(offset) {
            return Err(invalid());
        }
        let copied = entry & COPIED != 0;
        if self.header.has_external_data_file() {
            // In such a file each cluster of the disk has its own place.
            let l1_index = l2_table.active.map_or(0, |(l1_index, _)| l1_index);
            let l2_bits = bits.saturating_sub(3);
            let place = l1_index.saturating_mul(1 << l2_bits).saturating_add(index);
            let is_there = offset == place.saturating_mul(self.header.cluster_size());
            let is_mapped = offset != 0 || copied;
            return if is_mapped && l2_table.active.is_some() && !is_there {
                Err(invalid())
            } else {
                Ok(())
            };
        }
        if offset == 0 {
            return Ok(());
        }
        let users = match (copied && l2_table.active.is_some(), l2_table.users) {
            (true, 1) => Users::One,
            (true, _) => return Err(damaged("another use for its", "data")),
            (false, users) => Users::Shared(users),
        };
        self.refcounts.claim(offset, self.header.cluster_size(), users, "data")
    }

    /// The entries of a table; none of one that is a hole.
    fn table(&self, offset: u64, entries: u64) -> io::Result<Vec<u64>> {
        if self.file.is_hole(offset, entries.saturating_mul(8)) {
            return Ok(Vec::new());
        }
        table(self.file, offset, entries)
    }

    fn own(&mut self, offset: u64, len: u64, what: &str) -> io::Result<()> {
        self.refcounts.claim(offset, len, Users::One, what)
    }

    fn is_aligned(&self, offset: u64) -> bool {
        offset & self.header.cluster_size().saturating_sub(1) == 0
    }
}
