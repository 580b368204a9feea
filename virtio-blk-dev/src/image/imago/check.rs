use std::collections::BTreeMap;
use std::io;

use super::header::{Header, damaged, offset_of, table};
use super::host::{HostFile, ReadAt};

/// Flags of the entries of L1 and L2 tables.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;

/// Refuses a qcow2 image that imago doesn't: one that is encrypted, and, to be written, one that is
/// not consistent. imago hands out what counts as free: a cluster that is in use nevertheless would
/// get a second user, and what the first one flushed would be lost.
///
/// So every cluster that is in use has a refcount, whoever left the image as it is, and none that
/// is written where it lies has two users. Clusters that count as in use and aren't do no harm.
pub(super) fn check(file: &HostFile, header: &Header, read_only: bool) -> io::Result<()> {
    if header.crypt_method != 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is encrypted"));
    }
    // imago refuses the latter itself.
    if read_only || header.has_extended_l2() {
        return Ok(());
    }
    let mut clusters = Clusters {
        file,
        header,
        refblocks: header.reftable(file)?,
        counted: BTreeMap::new(),
        owned: BTreeMap::new(),
    };
    let cluster = header.cluster_size();
    clusters.own(0, 1, "header")?;
    let reftable_size = header.reftable_entries()?.saturating_mul(8);
    clusters.own(header.reftable_offset, reftable_size, "refcount table")?;
    let l1_size = u64::from(header.l1_entries).saturating_mul(8);
    clusters.own(header.l1_offset, l1_size, "L1 table")?;
    for offset in clusters.refblocks.clone().into_iter().filter(|offset| *offset != 0) {
        clusters.own(offset, 1, "refcount block")?;
    }
    let covered = (cluster >> 3).saturating_mul(cluster).saturating_mul(header.l1_entries.into());
    if covered < header.size {
        return Err(damaged("too small an", "L1 table"));
    }
    clusters.check_tables(header.l1_offset, header.l1_entries, true)?;
    clusters.check_snapshots()
}

/// One bit a cluster, by refcount block.
type Bits = BTreeMap<u64, Vec<u64>>;

struct Clusters<'a> {
    file: &'a HostFile,
    header: &'a Header,
    refblocks: Vec<u64>,
    /// Clusters with a refcount, of the refcount blocks that were looked at.
    counted: Bits,
    /// Clusters that are written where they lie, and so have one user.
    owned: Bits,
}

impl Clusters<'_> {
    /// An L1 table, the L2 tables in it, and what they refer to. What the disk is now is `active`;
    /// a snapshot's tables are not written, and say nothing of who else uses a cluster.
    fn check_tables(&mut self, l1_offset: u64, entries: u32, active: bool) -> io::Result<()> {
        for entry in table(self.file, l1_offset, entries.into())? {
            let l2_offset = offset_of(entry);
            if l2_offset == 0 {
                continue;
            }
            self.refer(l2_offset, 1, active && entry & COPIED != 0, "L2 table")?;
            for entry in table(self.file, l2_offset, self.header.cluster_size() >> 3)? {
                self.check_entry(entry, active)?;
            }
        }
        Ok(())
    }

    fn check_entry(&mut self, entry: u64, active: bool) -> io::Result<()> {
        if entry & COMPRESSED != 0 {
            // An offset in bytes, and above it how many sectors follow its own.
            let size_bits = self.header.cluster_bits.saturating_sub(8);
            let offset_bits = 62u32.saturating_sub(size_bits);
            let offset = entry & !(u64::MAX << offset_bits);
            let sectors = (entry & !(u64::MAX << 62)) >> offset_bits;
            let len = sectors.saturating_add(1).saturating_mul(512).saturating_sub(offset & 511);
            return self.refer(offset, len, false, "compressed data");
        }
        if offset_of(entry) == 0 || self.header.has_external_data_file() {
            return Ok(());
        }
        self.refer(offset_of(entry), 1, active && entry & COPIED != 0, "data")
    }

    fn check_snapshots(&mut self) -> io::Result<()> {
        let mut offset = self.header.snapshots_offset;
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
            self.refer(offset, 40, false, "snapshot table")?;
            let size = u64::from(l1_entries).saturating_mul(8);
            self.refer(l1_offset, size, false, "L1 table of a snapshot")?;
            self.check_tables(l1_offset, l1_entries, false)?;
            let lens = [u16::from_be_bytes(*id_len), u16::from_be_bytes(*name_len)].map(u64::from);
            let len = lens.into_iter().fold(u64::from(extra_len), u64::saturating_add);
            let next = offset.saturating_add(40).saturating_add(len);
            offset = next.checked_next_multiple_of(8).unwrap_or(next);
        }
        Ok(())
    }

    fn own(&mut self, offset: u64, len: u64, what: &str) -> io::Result<()> {
        self.refer(offset, len, true, what)
    }

    /// Refuses what counts as free, and a second user of what has one.
    fn refer(&mut self, offset: u64, len: u64, owns: bool, what: &str) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(len.saturating_sub(1));
        for cluster in offset >> bits..=last >> bits {
            if !self.is_counted(cluster)? {
                return Err(damaged("no refcount for its", what));
            }
            if owns && self.is_owned(cluster) {
                return Err(damaged("another use for its", what));
            }
        }
        Ok(())
    }

    /// Whether the cluster has an owner. It has from now on.
    fn is_owned(&mut self, cluster: u64) -> bool {
        let (block, place) = self.place(cluster);
        let bits = self.owned.entry(block).or_default();
        let (word, bit) = ((place >> 6) as usize, 1 << (place & 63));
        if bits.len() <= word {
            bits.resize(word.saturating_add(1), 0);
        }
        let Some(word) = bits.get_mut(word) else { return true };
        let was = *word & bit != 0;
        *word |= bit;
        was
    }

    fn is_counted(&mut self, cluster: u64) -> io::Result<bool> {
        let (block, place) = self.place(cluster);
        if !self.counted.contains_key(&block) {
            let bits = self.read_refblock(block)?;
            self.counted.insert(block, bits);
        }
        let word = self.counted.get(&block).and_then(|bits| bits.get((place >> 6) as usize));
        Ok(word.is_some_and(|word| word & (1 << (place & 63)) != 0))
    }

    /// The refcount block of a cluster, and its place there.
    fn place(&self, cluster: u64) -> (u64, u64) {
        let bits = self.header.refblock_bits();
        (cluster >> bits, cluster & !(u64::MAX << bits))
    }

    /// Which refcounts of a block are not zero.
    fn read_refblock(&self, block: u64) -> io::Result<Vec<u64>> {
        let index = usize::try_from(block).ok();
        let offset = index.and_then(|index| self.refblocks.get(index)).copied().unwrap_or(0);
        if offset == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; self.header.cluster_size() as usize];
        self.file.read_at(&mut bytes, offset)?;
        let order = self.header.refcount_order;
        let mut bits = vec![0u64; 1 << self.header.refblock_bits().saturating_sub(6)];
        let mut set = |place: usize| {
            if let Some(word) = bits.get_mut(place >> 6) {
                *word |= 1 << (place & 63);
            }
        };
        if let Some(width) = order.checked_sub(3) {
            for (place, count) in bytes.chunks(1 << width).enumerate() {
                if count.iter().any(|byte| *byte != 0) {
                    set(place);
                }
            }
            return Ok(bits);
        }
        // Several in a byte, the first in its lowest bits.
        let mask = !(u8::MAX << (1u32 << order));
        for (nth, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for within in 0..8usize >> order {
                if byte >> (within << order) & mask != 0 {
                    set((nth << 3 >> order) | within);
                }
            }
        }
        Ok(bits)
    }
}
