use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Refuses a qcow2 image that imago doesn't: one that is encrypted, and, to be written, one whose
/// own tables count as free space, or which has more of them than anybody. imago would hand that
/// space out, and a guest could write its disk's tables, or have no end of space looked for.
///
/// A file that is no qcow2 image at all is left to imago.
pub(super) fn check(file: &File, read_only: bool) -> io::Result<()> {
    let Some(header) = Header::read(file)? else { return Ok(()) };
    if header.crypt_method != 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is encrypted"));
    }
    if read_only {
        return Ok(());
    }
    let refcounts = Refcounts {
        file,
        header: &header,
        refblocks: header.table(file, header.reftable_offset, header.reftable_entries()?)?,
    };
    let l1_entries = u64::from(header.l1_entries);
    let l1_table = header.table(file, header.l1_offset, l1_entries)?;
    refcounts.expect(0, 1, "header")?;
    let reftable_size = header.reftable_entries()?.saturating_mul(8);
    refcounts.expect(header.reftable_offset, reftable_size, "refcount table")?;
    refcounts.expect(header.l1_offset, l1_entries.saturating_mul(8), "L1 table")?;
    for (tables, what) in [(&refcounts.refblocks, "refcount block"), (&l1_table, "L2 table")] {
        for offset in tables.iter().filter(|offset| **offset != 0) {
            refcounts.expect(*offset, 1, what)?;
        }
    }
    Ok(())
}

/// Entries of a table, 32 MiB: what QEMU allows of an L1 table.
const MAX_ENTRIES: u64 = 4 << 20;

/// The offset in an entry of the L1 and the refcount table.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The part of the header that leads to the tables (QEMU's docs/interop/qcow2.txt).
struct Header {
    cluster_bits: u32,
    crypt_method: u32,
    l1_entries: u32,
    l1_offset: u64,
    reftable_offset: u64,
    reftable_clusters: u32,
    /// Bits of a refcount are two to the power of it.
    refcount_order: u32,
}

impl Header {
    fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; 104];
        read_at(file, &mut bytes, 0)?;
        let u32_at = |offset: usize| -> u32 {
            let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
            field.map_or(0, |field| u32::from_be_bytes(*field))
        };
        let u64_at = |offset: usize| -> u64 {
            let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
            field.map_or(0, |field| u64::from_be_bytes(*field))
        };
        let header = Self {
            cluster_bits: u32_at(20),
            crypt_method: u32_at(32),
            l1_entries: u32_at(36),
            l1_offset: u64_at(40),
            reftable_offset: u64_at(48),
            reftable_clusters: u32_at(56),
            refcount_order: if u32_at(4) == 2 { 4 } else { u32_at(96) },
        };
        let is_sound = (9..=21).contains(&header.cluster_bits) && header.refcount_order <= 6;
        Ok((u32_at(0) == 0x5146_49fb && is_sound).then_some(header))
    }

    fn reftable_entries(&self) -> io::Result<u64> {
        let size = u64::from(self.reftable_clusters).checked_shl(self.cluster_bits);
        size.map(|size| size >> 3).ok_or_else(|| damaged("too large a", "refcount table"))
    }

    /// The offsets in a table.
    fn table(&self, file: &File, offset: u64, entries: u64) -> io::Result<Vec<u64>> {
        if entries > MAX_ENTRIES {
            return Err(damaged("too large a", "table"));
        }
        let mut bytes = vec![0; usize::try_from(entries).unwrap_or(0).saturating_mul(8)];
        read_at(file, &mut bytes, offset)?;
        let (chunks, _) = bytes.as_chunks();
        Ok(chunks.iter().map(|entry| u64::from_be_bytes(*entry) & OFFSET).collect())
    }
}

struct Refcounts<'a> {
    file: &'a File,
    header: &'a Header,
    refblocks: Vec<u64>,
}

impl Refcounts<'_> {
    /// Refuses a part of the file that counts as free.
    fn expect(&self, offset: u64, len: u64, what: &str) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let last = offset.saturating_add(len.saturating_sub(1));
        for cluster in offset >> bits..=last >> bits {
            if !self.is_counted(cluster)? {
                return Err(damaged("no refcount for its", what));
            }
        }
        Ok(())
    }

    fn is_counted(&self, cluster: u64) -> io::Result<bool> {
        let order = self.header.refcount_order;
        // A refcount block is one cluster.
        let counts_bits = self.header.cluster_bits.saturating_add(3).saturating_sub(order);
        let block = usize::try_from(cluster >> counts_bits).ok();
        let block = block.and_then(|block| self.refblocks.get(block)).copied().unwrap_or(0);
        if block == 0 {
            return Ok(false);
        }
        let first_bit = (cluster & !(u64::MAX << counts_bits)) << order;
        let width = 1u32 << order;
        let mut bytes = [0; 8];
        let size = width.div_ceil(8) as usize;
        let place = block.saturating_add(first_bit >> 3);
        read_at(self.file, bytes.get_mut(..size).unwrap_or_default(), place)?;
        let count = u64::from_le_bytes(bytes);
        // A refcount smaller than a byte is one of several in it.
        let mask = if width < 8 { !(u64::MAX << width) << (first_bit & 7) } else { u64::MAX };
        Ok(count & mask != 0)
    }
}

fn damaged(finding: &str, what: &str) -> io::Error {
    let message = format!("it is damaged, with {finding} {what}; repair it with `qemu-img check`");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Fills `bytes`, with zeroes beyond the end.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done = done.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // An offset beyond what a file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
