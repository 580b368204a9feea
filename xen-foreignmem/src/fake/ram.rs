//! The guest's RAM, as the guest sees it.

use std::collections::BTreeMap;
use std::io;
use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryResult, Permissions, VolatileSlice};

use super::pages::FakePages;
use crate::domid::DomId;
use crate::lock::lock;
use crate::page::PAGE_SIZE;
use crate::physical::{NoPhysicalMemory, invalid_address};

/// A guest's RAM, in banks.
///
/// It is a [`GuestMemory`] itself: the guest's own view of it.
#[derive(Debug)]
pub struct FakeRam {
    domid: DomId,
    banks: Vec<Bank>,
    /// The banks' pages one after the other, then as many spare ones.
    pages: FakePages,
    changes: Mutex<Changes>,
    held: Arc<Held>,
}

/// How many mappings another domain has of the guest's pages, grants and resources included.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicU64);

impl Held {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Bank {
    range: Range<u64>,
    first_page: usize,
}

#[derive(Debug, Default)]
struct Changes {
    destroyed: bool,
    /// Frames that the guest gave back (`None`), or took again, as another page.
    frames: BTreeMap<u64, Option<usize>>,
    /// Frames that are paged out, and how many more tries find them so.
    paged_out: BTreeMap<u64, u32>,
    spare_used: usize,
}

impl FakeRam {
    /// A guest with RAM at the given places: address and length, both multiples of the page size.
    ///
    /// # Panics
    ///
    /// On places that are no RAM banks: none, unaligned, or overlapping.
    pub fn new(domid: DomId, banks: &[(u64, u64)]) -> Self {
        let page = PAGE_SIZE as u64;
        let mut first_page = 0;
        let banks: Vec<_> = banks
            .iter()
            .map(|&(base, len)| {
                assert!(base % page == 0 && len % page == 0 && len > 0, "unaligned bank {base:#x}");
                let bank = Bank { range: base..base + len, first_page };
                first_page += (len / page) as usize;
                bank
            })
            .collect();
        for (i, bank) in banks.iter().enumerate() {
            let apart =
                |b: &Bank| b.range.end <= bank.range.start || b.range.start >= bank.range.end;
            assert!(banks[i + 1..].iter().all(apart), "overlapping banks");
        }
        let pages = FakePages::new(first_page * 2).expect("memory for the fake guest");
        Self { domid, banks, pages, changes: Mutex::default(), held: Arc::default() }
    }

    /// The guest's number.
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Where the RAM is.
    pub fn banks(&self) -> impl Iterator<Item = Range<u64>> {
        self.banks.iter().map(|bank| bank.range.clone())
    }

    /// The guest reads its memory.
    ///
    /// # Errors
    ///
    /// Not RAM.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> GuestMemoryResult<()> {
        self.read_slice(buf, GuestAddress(addr))
    }

    /// The guest writes its memory.
    ///
    /// # Errors
    ///
    /// Not RAM.
    pub fn write(&self, addr: u64, buf: &[u8]) -> GuestMemoryResult<()> {
        self.write_slice(buf, GuestAddress(addr))
    }

    /// The guest gives a frame back (memory ballooning). Mappings of it keep the old page.
    pub fn balloon_out(&self, gfn: u64) {
        lock(&self.changes).frames.insert(gfn, None);
    }

    /// The guest takes a frame again: as on Xen, it is another page, zeroed.
    ///
    /// # Panics
    ///
    /// When every spare page was used.
    pub fn balloon_in(&self, gfn: u64) {
        let mut changes = lock(&self.changes);
        let page = self.pages.pages() / 2 + changes.spare_used;
        assert!(page < self.pages.pages(), "out of spare pages");
        changes.spare_used += 1;
        changes.frames.insert(gfn, Some(page));
    }

    /// The next `tries` attempts to map a frame find it paged out.
    pub fn page_out(&self, gfn: u64, tries: u32) {
        lock(&self.changes).paged_out.insert(gfn, tries);
    }

    /// The guest is destroyed: from now on nothing of it can be mapped. Mappings keep their pages, and as
    /// long as there are any, the domain is [dying](Self::is_dying).
    pub fn destroy(&self) {
        lock(&self.changes).destroyed = true;
    }

    /// Whether the guest was destroyed while some of its pages are mapped: Xen then still knows the domain,
    /// though it has no memory and no devices.
    pub fn is_dying(&self) -> bool {
        lock(&self.changes).destroyed && self.is_held()
    }

    /// Whether the guest was destroyed and nothing holds any page of it: there is no such domain any more.
    pub fn is_gone(&self) -> bool {
        lock(&self.changes).destroyed && !self.is_held()
    }

    fn is_held(&self) -> bool {
        self.held.0.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    pub(crate) fn pages(&self) -> &FakePages {
        &self.pages
    }

    /// What Xen answers when `domid`'s frame is to be mapped: the page, or an errno.
    pub(crate) fn map_frame(&self, domid: DomId, gfn: u64) -> Result<usize, i32> {
        let mut changes = lock(&self.changes);
        if domid != self.domid || changes.destroyed && !self.is_held() {
            return Err(libc::ESRCH);
        }
        if changes.destroyed {
            // Xen finds the domain, but no page in its physmap.
            return Err(libc::EINVAL);
        }
        if let Some(tries) = changes.paged_out.get_mut(&gfn).filter(|tries| **tries > 0) {
            *tries -= 1;
            return Err(libc::ENOENT);
        }
        self.page(&changes, gfn).ok_or(libc::EINVAL)
    }

    /// Whether Xen knows this domain.
    pub(crate) fn check_known(&self, domid: DomId) -> io::Result<()> {
        if self.is_gone() || domid != self.domid {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    }

    fn page(&self, changes: &Changes, gfn: u64) -> Option<usize> {
        if let Some(&changed) = changes.frames.get(&gfn) {
            return changed;
        }
        let addr = gfn.checked_mul(PAGE_SIZE as u64)?;
        let bank = self.banks.iter().find(|bank| bank.range.contains(&addr))?;
        Some(bank.first_page + ((addr - bank.range.start) / PAGE_SIZE as u64) as usize)
    }

    /// Memory from `addr` on: at most `len` bytes, at least one.
    fn slice_at(&self, addr: u64, len: usize) -> GuestMemoryResult<VolatileSlice<'_>> {
        let changes = lock(&self.changes);
        let gfn = addr / PAGE_SIZE as u64;
        let offset = (addr % PAGE_SIZE as u64) as usize;
        let page = self.page(&changes, gfn).ok_or(invalid_address(GuestAddress(addr)))?;
        let run = match self.banks.iter().find(|bank| bank.range.contains(&addr)) {
            Some(bank) if changes.frames.is_empty() => (bank.range.end - addr) as usize,
            _ => PAGE_SIZE - offset,
        };
        Ok(self.pages.view().subslice(page * PAGE_SIZE + offset, len.min(run))?)
    }
}

impl GuestMemory for FakeRam {
    type PhysicalMemory = NoPhysicalMemory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.get_slices(addr, count, access).is_ok_and(|mut slices| slices.all(|s| s.is_ok()))
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        _access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, ()>> {
        addr.0.checked_add(count as u64).ok_or(invalid_address(addr))?;
        let mut at = addr.0;
        let mut left = count;
        Ok(Slices(
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let slice = self.slice_at(at, left);
                match &slice {
                    Ok(slice) => {
                        at += slice.len() as u64;
                        left -= slice.len();
                    }
                    Err(_) => left = 0,
                }
                Some(slice)
            })
            .fuse(),
        ))
    }
}

/// An iterator over slices, as vm-memory wants it named.
struct Slices<I>(I);

impl<'a, I: FusedIterator<Item = GuestMemoryResult<VolatileSlice<'a>>>> Iterator for Slices<I> {
    type Item = GuestMemoryResult<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<'a, I: FusedIterator<Item = GuestMemoryResult<VolatileSlice<'a>>>> FusedIterator
    for Slices<I>
{
}

impl<'a, I: FusedIterator<Item = GuestMemoryResult<VolatileSlice<'a>>>>
    GuestMemorySliceIterator<'a, ()> for Slices<I>
{
}
