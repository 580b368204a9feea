use std::collections::BTreeMap;
use std::io;

use super::header::{Header, damaged};
use super::host::{HostFile, ReadAt};

/// How a part of an image's file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Users {
    /// By one user, who writes it in place.
    One,
    /// By so many users, as the same table. Nothing else uses it.
    Several(u64),
    /// By so many users, and perhaps by others as well. Nobody writes it in place.
    Shared(u64),
}

/// The refcounts of an image, less the uses that were found.
pub(super) struct Refcounts<'a> {
    file: &'a HostFile,
    header: &'a Header,
    /// Clusters that the file has, the last one perhaps in part.
    clusters: u64,
    /// The places of the refcount blocks, 0 where there is none.
    refblocks: Vec<u64>,
    /// What is known of the clusters of each refcount block that was looked at.
    known: BTreeMap<u64, Block>,
}

/// A refcount block.
struct Block {
    /// The refcounts less the uses found, as in the file; empty if they were all zero.
    counts: Vec<u8>,
    /// Clusters that are used.
    used: Vec<u64>,
    /// Those of them that nobody else may use.
    owned: Vec<u64>,
}

impl<'a> Refcounts<'a> {
    pub(super) fn new(
        file: &'a HostFile,
        header: &'a Header,
        refblocks: Vec<u64>,
    ) -> io::Result<Self> {
        let clusters = file.size()?.div_ceil(header.cluster_size());
        Ok(Self { file, header, clusters, refblocks, known: BTreeMap::new() })
    }

    /// Notes the users of some bytes, and so of the clusters that these lie in.
    ///
    /// # Errors
    /// A cluster lies beyond the end of the file, its refcount is less than its uses, or it has a
    /// use beside one that allows no other. Those of the host.
    pub(super) fn claim(
        &mut self,
        offset: u64,
        len: u64,
        users: Users,
        what: &str,
    ) -> io::Result<()> {
        let Some(last) = len.checked_sub(1) else { return Ok(()) };
        let bits = self.header.cluster_bits;
        for cluster in offset >> bits..=offset.saturating_add(last) >> bits {
            self.must_be_in_file(cluster << bits, what)?;
            self.claim_cluster(cluster, users, what)?;
        }
        Ok(())
    }

    /// Refuses a place beyond the file's end.
    pub(super) fn must_be_in_file(&self, offset: u64, what: &str) -> io::Result<()> {
        match offset >> self.header.cluster_bits < self.clusters {
            true => Ok(()),
            false => Err(damaged("a place beyond the end of the file for its", what)),
        }
    }

    fn claim_cluster(&mut self, cluster: u64, users: Users, what: &str) -> io::Result<()> {
        let bits = self.header.refblock_bits();
        let (number, place) = (cluster >> bits, cluster & !(u64::MAX << bits));
        if !self.known.contains_key(&number) {
            let block = self.read(number)?;
            self.known.insert(number, block);
        }
        let Some(block) = self.known.get_mut(&number) else { return Ok(()) };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let is_used = get_bit(&block.used, place);
        let (is_alone, users) = match users {
            Users::One => (true, 1),
            Users::Several(users) => (true, users),
            Users::Shared(users) => (false, users),
        };
        if get_bit(&block.owned, place) || is_alone && is_used {
            return Err(damaged("another use for its", what));
        }
        let order = self.header.refcount_order;
        match block.count(place, order).checked_sub(users) {
            Some(left) => block.set_count(place, order, left),
            None if is_used => return Err(damaged("more uses than refcounts for its", what)),
            None => return Err(damaged("no refcount for its", what)),
        }
        set_bit(&mut block.used, place);
        if is_alone {
            set_bit(&mut block.owned, place);
        }
        Ok(())
    }

    fn read(&self, number: u64) -> io::Result<Block> {
        let index = usize::try_from(number).ok();
        let offset = index.and_then(|index| self.refblocks.get(index)).copied().unwrap_or(0);
        let mut counts = Vec::new();
        let cluster = self.header.cluster_size();
        if offset != 0 && !self.file.is_hole(offset, cluster) {
            counts.resize(cluster as usize, 0);
            self.file.read_at(&mut counts, offset)?;
        }
        if counts.iter().all(|byte| *byte == 0) {
            counts = Vec::new();
        }
        Ok(Block { counts, used: Vec::new(), owned: Vec::new() })
    }
}

impl Block {
    fn count(&self, place: usize, order: u32) -> u64 {
        let Some(width) = order.checked_sub(3) else {
            let (byte, shift, mask) = within_byte(place, order);
            return self.counts.get(byte).map_or(0, |byte| (byte >> shift & mask).into());
        };
        let start = place << width;
        let bytes = self.counts.get(start..start.saturating_add(1 << width)).unwrap_or_default();
        bytes.iter().fold(0, |count, byte| count << 8 | u64::from(*byte))
    }

    fn set_count(&mut self, place: usize, order: u32, count: u64) {
        let Some(width) = order.checked_sub(3) else {
            let (byte, shift, mask) = within_byte(place, order);
            if let Some(byte) = self.counts.get_mut(byte) {
                *byte = *byte & !(mask << shift) | (count as u8 & mask) << shift;
            }
            return;
        };
        let start = place << width;
        let bytes = self.counts.get_mut(start..start.saturating_add(1 << width));
        for (byte, new) in bytes.unwrap_or_default().iter_mut().rev().zip(count.to_le_bytes()) {
            *byte = new;
        }
    }
}

/// Where a refcount of less than a byte is: several are in one, the first in its lowest bits.
fn within_byte(place: usize, order: u32) -> (usize, usize, u8) {
    let bit = place << order;
    (bit >> 3, bit & 7, !(u8::MAX << (1u32 << order)))
}

fn get_bit(bits: &[u64], place: usize) -> bool {
    bits.get(place >> 6).is_some_and(|word| word & (1 << (place & 63)) != 0)
}

fn set_bit(bits: &mut Vec<u64>, place: usize) {
    let word = place >> 6;
    if bits.len() <= word {
        bits.resize(word.saturating_add(1), 0);
    }
    if let Some(word) = bits.get_mut(word) {
        *word |= 1 << (place & 63);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refcount_is_changed_by_itself() {
        for order in 0..=6 {
            let mut block = Block { counts: vec![0xff; 64], used: Vec::new(), owned: Vec::new() };
            let all = block.count(3, order);
            assert_eq!(all, u64::MAX >> (64 - (1 << order)), "order {order}");
            block.set_count(3, order, all - 1);
            let counts: Vec<_> = (0..8).map(|place| block.count(place, order)).collect();
            assert_eq!(counts, [all, all, all, all - 1, all, all, all, all], "order {order}");
        }
    }
}
