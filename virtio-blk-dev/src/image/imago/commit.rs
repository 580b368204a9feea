use std::collections::HashSet;
use std::io;

use super::block::{BLOCK_SIZE, Block, Blocks};
use super::header::{Header, offset_of, table};
use super::host::{HostFile, ReadAt};

/// What a block of tables belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    Refcounts,
    RefcountTable,
    L1Table,
    L2Table,
}

/// Where an image's tables are.
#[derive(Debug)]
pub(super) struct Kinds {
    header: Header,
    /// The refcount blocks.
    refblocks: HashSet<u64>,
    /// The L2 tables.
    l2_tables: HashSet<u64>,
}

impl Kinds {
    /// Of the tables in `file`.
    pub(super) fn of(file: &impl ReadAt) -> io::Result<Self> {
        let not_qcow2 = || io::Error::new(io::ErrorKind::InvalidData, "the header is overwritten");
        let header = Header::read(file)?.ok_or_else(not_qcow2)?;
        let l1_table = table(file, header.l1_offset, header.l1_entries.into())?;
        Ok(Self {
            refblocks: header.reftable(file)?.into_iter().filter(|offset| *offset != 0).collect(),
            l2_tables: l1_table.into_iter().map(offset_of).filter(|offset| *offset != 0).collect(),
            header,
        })
    }

    /// `None` is a block that belongs to no table.
    pub(super) fn of_block(&self, number: u64) -> Option<Kind> {
        let offset = number.saturating_mul(BLOCK_SIZE as u64);
        let cluster = offset & !(self.header.cluster_size().saturating_sub(1));
        let is_in = |start: u64, entries: u64| {
            offset >= start && offset < start.saturating_add(entries.saturating_mul(8))
        };
        if cluster == 0 {
            Some(Kind::Header)
        } else if self.refblocks.contains(&cluster) {
            Some(Kind::Refcounts)
        } else if is_in(self.header.reftable_offset, self.header.reftable_entries().unwrap_or(0)) {
            Some(Kind::RefcountTable)
        } else if is_in(self.header.l1_offset, self.header.l1_entries.into()) {
            Some(Kind::L1Table)
        } else if self.l2_tables.contains(&cluster) {
            Some(Kind::L2Table)
        } else {
            None
        }
    }
}

/// Writes `blocks`, and brings them and all data to stable storage.
///
/// The order lets the power be cut anywhere. In the file, at any time, every cluster that a table
/// refers to has a refcount, and what it refers to is whole:
///
/// 1. refcounts, where they rise, and a refcount table in a new place: nothing refers to them yet;
/// 2. what leads to these refcounts, the refcount table's entries or the header;
/// 3. L2 tables, whose clusters now have refcounts and, since 1, their data;
/// 4. the L1 table, which leads to new L2 tables;
/// 5. refcounts, where they fall: nothing refers to these clusters any more. That may be lost, and
///    is then storage that nobody uses until `qemu-img check -r leaks` finds it.
///
/// Between these the file is flushed; a step with nothing to do costs nothing. A flush of data
/// alone is one flush of the file, and one of newly allocated clusters is two.
pub(super) fn write(
    file: &HostFile,
    data: Option<&HostFile>,
    blocks: &Blocks,
    kinds: &Kinds,
) -> io::Result<()> {
    let of_kind =
        |wanted| blocks.iter().filter(move |(number, _)| kinds.of_block(**number) == Some(wanted));
    let old = Header::read(file)?;
    let is_moved = old.as_ref().is_none_or(|old| {
        old.reftable_offset != kinds.header.reftable_offset
            || old.reftable_clusters != kinds.header.reftable_clusters
    });
    let old_table = old.map(|old| old.reftable(file)).transpose()?.unwrap_or_default();
    let old_refblocks: HashSet<u64> = old_table.into_iter().filter(|offset| *offset != 0).collect();

    let mut fall = HashSet::new();
    let mut rise = Blocks::new();
    for (number, block) in of_kind(Kind::Refcounts) {
        let offset = number.saturating_mul(BLOCK_SIZE as u64);
        let mut risen = block.clone();
        // A new block's place may hold anything.
        if old_refblocks.contains(&(offset & !(kinds.header.cluster_size().saturating_sub(1)))) {
            let mut before = [0; BLOCK_SIZE];
            file.read_at(&mut before, offset)?;
            raise(&mut risen, &before, kinds.header.refcount_order);
        }
        if risen != *block {
            fall.insert(*number);
        }
        rise.insert(*number, risen);
    }
    write_all(file, rise.iter())?;
    if is_moved {
        write_all(file, of_kind(Kind::RefcountTable))?;
    }
    flush(file, data)?;

    let step = |kinds: &[Kind]| -> io::Result<()> {
        let mut written = false;
        for kind in kinds {
            written |= write_all(file, of_kind(*kind))?;
        }
        if written { file.sync() } else { Ok(()) }
    };
    match is_moved {
        true => step(&[Kind::Header])?,
        false => step(&[Kind::RefcountTable, Kind::Header])?,
    }
    step(&[Kind::L2Table])?;
    step(&[Kind::L1Table])?;
    write_all(file, blocks.iter().filter(|(number, _)| fall.contains(number)))?;
    Ok(())
}

/// Brings what was written to stable storage.
pub(super) fn flush(file: &HostFile, data: Option<&HostFile>) -> io::Result<()> {
    data.map_or(Ok(()), HostFile::sync)?;
    file.sync()
}

/// Raises each refcount to that of `before`, if that is higher.
fn raise(counts: &mut Block, before: &Block, order: u32) {
    if let Some(width) = order.checked_sub(3) {
        let size = 1usize << width;
        for (count, before) in counts.chunks_mut(size).zip(before.chunks(size)) {
            // The highest byte comes first.
            if *count < *before {
                count.copy_from_slice(before);
            }
        }
        return;
    }
    let mask = !(u8::MAX << (1u32 << order));
    for (byte, before) in counts.iter_mut().zip(before) {
        let highest = |within: usize| {
            let shift = within << order;
            let count = |byte: u8| byte >> shift & mask;
            count(*byte).max(count(*before)) << shift
        };
        *byte = (0..8usize >> order).map(highest).fold(0, |sum, count| sum | count);
    }
}

/// Writes blocks, neighbours together. Whether there are any.
fn write_all<'a>(
    file: &HostFile,
    blocks: impl Iterator<Item = (&'a u64, &'a Box<Block>)>,
) -> io::Result<bool> {
    let (mut start, mut run) = (0u64, Vec::new());
    let mut any = false;
    for (number, block) in blocks {
        let offset = number.saturating_mul(BLOCK_SIZE as u64);
        if offset != start.saturating_add(run.len() as u64) {
            file.write(&run, start)?;
            run.clear();
        }
        if run.is_empty() {
            start = offset;
        }
        run.extend_from_slice(&**block);
        any = true;
    }
    if any {
        file.write(&run, start)?;
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refcount_is_raised_by_itself() {
        for (order, new, old, raised) in [
            (0, [0b0101_0000, 0], [0b0011_0001, 0], [0b0111_0001, 0]),
            (1, [0b11_00_01_00, 0], [0b01_10_01_00, 0], [0b11_10_01_00, 0]),
            (2, [0x2f, 0], [0xf1, 0], [0xff, 0]),
            (3, [1, 7], [2, 3], [2, 7]),
            (4, [1, 0], [0, 255], [1, 0]),
            (4, [0, 255], [1, 0], [1, 0]),
        ] {
            let (mut counts, mut before) = ([0; BLOCK_SIZE], [0; BLOCK_SIZE]);
            counts[..2].copy_from_slice(&new);
            before[..2].copy_from_slice(&old);
            raise(&mut counts, &before, order);
            assert_eq!(counts[..2], raised, "{order}: {new:x?} and {old:x?}");
        }
    }
}
