//! `/dev/xen/gntdev`, and the guest's side of its grant table.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;

use super::faults::Faults;
use super::ram::{FakeRam, Held};
use crate::domid::DomId;
use crate::error::{MapError, MapTarget};
use crate::grant::{CopySegment, GrantTable, grants_per_mapping};
use crate::lock::lock;
use crate::mapping::{Mapping, Prot, Release, Unmap};
use crate::page::PAGE_SIZE;

/// Statuses of `xen/include/public/grant_table.h`.
const GNTST_OKAY: i16 = 0;
const GNTST_GENERAL_ERROR: i16 = -1;
const GNTST_BAD_GNTREF: i16 = -3;
const GNTST_BAD_PAGE: i16 = -9;

/// The first reference a guest hands out: the lower ones are reserved
/// (`GNTTAB_NR_RESERVED_ENTRIES`).
const FIRST_REF: u32 = 8;

/// A grant can't be ended: the other side still has it mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grant {0} is still in use")]
pub struct Busy(pub u32);

/// An open `/dev/xen/gntdev`, and beside it the guest's side of the grant table.
#[derive(Debug)]
pub struct FakeGrantTable {
    ram: Arc<FakeRam>,
    domid: DomId,
    kernel_page_size: usize,
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    held: Arc<Held>,
    state: Mutex<State>,
    map_faults: Faults,
    unmap_faults: Faults,
    copy_faults: Faults,
}

#[derive(Debug, Default)]
struct State {
    grants: BTreeMap<u32, Grant>,
    granted: u32,
    /// The live mappings' references, by index.
    mappings: BTreeMap<u64, Vec<u32>>,
    mapped_ever: u64,
    copies: u64,
    segments: u64,
    unmap_failures: u64,
    bad_segment: Option<(usize, i16)>,
}

#[derive(Debug)]
struct Grant {
    gfn: u64,
    readonly: bool,
    mapped: u32,
}

impl FakeGrantTable {
    /// A descriptor for use with `ram`'s guest.
    pub fn new(ram: Arc<FakeRam>) -> Self {
        let domid = ram.domid();
        let table = Table { held: ram.held().clone(), ..Table::default() };
        Self { ram, domid, kernel_page_size: PAGE_SIZE, table: Arc::new(table) }
    }

    /// A kernel whose pages have so many bytes, 4096 by default: with larger ones, it maps one grant at a
    /// time, as `gntdev_mmap` wants a page of the kernel's for each.
    pub fn with_kernel_page_size(mut self, bytes: usize) -> Self {
        self.kernel_page_size = bytes;
        self
    }

    /// The guest's memory.
    pub fn ram(&self) -> &Arc<FakeRam> {
        &self.ram
    }

    /// The guest grants one of its frames.
    pub fn grant(&self, gfn: u64, readonly: bool) -> u32 {
        self.grant_all(&[gfn], readonly)
    }

    /// The guest grants frames by consecutive references; the first of them.
    pub fn grant_all(&self, gfns: &[u64], readonly: bool) -> u32 {
        let mut state = lock(&self.table.state);
        let first = FIRST_REF + state.granted;
        for &gfn in gfns {
            let gref = FIRST_REF + state.granted;
            state.grants.insert(gref, Grant { gfn, readonly, mapped: 0 });
            state.granted += 1;
        }
        first
    }

    /// The guest grants a frame by a reference of the test's choice.
    pub fn grant_as(&self, gref: u32, gfn: u64, readonly: bool) {
        lock(&self.table.state).grants.insert(gref, Grant { gfn, readonly, mapped: 0 });
    }

    /// The guest ends a grant. Ending what was not granted does nothing.
    ///
    /// # Errors
    ///
    /// It is still mapped, and stays granted.
    pub fn end_access(&self, gref: u32) -> Result<(), Busy> {
        let mut state = lock(&self.table.state);
        if state.grants.get(&gref).is_some_and(|grant| grant.mapped > 0) {
            return Err(Busy(gref));
        }
        state.grants.remove(&gref);
        Ok(())
    }

    /// Failures of [`map`](GrantTable::map), to come.
    pub fn map_faults(&self) -> &Faults {
        &self.table.map_faults
    }

    /// Failures to give a mapping back, to come: its grants stay busy.
    pub fn unmap_faults(&self) -> &Faults {
        &self.table.unmap_faults
    }

    /// Failures of [`copy`](GrantTable::copy), to come.
    pub fn copy_faults(&self) -> &Faults {
        &self.table.copy_faults
    }

    /// The segment with this index of the next copy that has it fails with this status.
    pub fn fail_segment(&self, index: usize, status: i16) {
        lock(&self.table.state).bad_segment = Some((index, status));
    }

    /// How many mappings there are now.
    pub fn live_mappings(&self) -> usize {
        lock(&self.table.state).mappings.len()
    }

    /// How many grants are mapped now, each counted as often as it is mapped.
    pub fn live_grants(&self) -> usize {
        lock(&self.table.state).mappings.values().map(Vec::len).sum()
    }

    /// How many mappings there were.
    pub fn mapped_ever(&self) -> u64 {
        lock(&self.table.state).mapped_ever
    }

    /// How many copy calls there were.
    pub fn copies(&self) -> u64 {
        lock(&self.table.state).copies
    }

    /// How many segments they had, all together.
    pub fn segments(&self) -> u64 {
        lock(&self.table.state).segments
    }

    fn map_grants(&self, grefs: &[u32], prot: Prot) -> io::Result<Mapping> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        // The address space asked for, in the kernel's pages, is to be as many as there are grants.
        let vma_pages = (grefs.len() * PAGE_SIZE).div_ceil(self.kernel_page_size);
        if grefs.is_empty() || vma_pages != grefs.len() {
            return Err(invalid());
        }
        self.table.map_faults.call()?;
        let mut state = lock(&self.table.state);
        let mut pages = Vec::with_capacity(grefs.len());
        for gref in grefs {
            let grant = state.grants.get(gref).ok_or_else(invalid)?;
            if grant.readonly && prot.contains(Prot::WRITE) {
                return Err(invalid());
            }
            pages.push(Some(self.ram.map_frame(self.domid, grant.gfn).map_err(|_| invalid())?));
        }
        let region = self.ram.pages().alias(prot, &pages)?;
        for gref in grefs {
            if let Some(grant) = state.grants.get_mut(gref) {
                grant.mapped += 1;
            }
        }
        let index = state.mapped_ever * PAGE_SIZE as u64;
        state.mapped_ever += 1;
        state.mappings.insert(index, grefs.to_vec());
        self.table.held.add();
        let release = Release::new(self.table.clone(), index, grefs.len() as u32);
        Ok(Mapping::with_release(region, prot, release))
    }

    fn copy_segment(&self, state: &State, segment: &CopySegment<'_>) -> i16 {
        let Some(grant) = state.grants.get(&segment.gref()) else {
            return GNTST_BAD_GNTREF;
        };
        if grant.readonly && segment.is_to_guest() {
            return GNTST_GENERAL_ERROR;
        }
        let Ok(page) = self.ram.map_frame(self.domid, grant.gfn) else {
            return GNTST_BAD_PAGE;
        };
        let offset = page * PAGE_SIZE + usize::from(segment.offset());
        let Ok(guest) = self.ram.pages().view().subslice(offset, segment.len()) else {
            return GNTST_GENERAL_ERROR;
        };
        let local: VolatileSlice<'_> = segment.local();
        if segment.is_to_guest() {
            local.copy_to_volatile_slice(guest);
        } else {
            guest.copy_to_volatile_slice(local);
        }
        GNTST_OKAY
    }
}

impl GrantTable for FakeGrantTable {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn map(&self, grefs: &[u32], prot: Prot) -> Result<Mapping, MapError> {
        let target = MapTarget::Gref(grefs.first().copied().unwrap_or_default());
        self.map_grants(grefs, prot).map_err(|e| MapError::new(self.domid, target, e))
    }

    fn grants_per_mapping(&self) -> usize {
        grants_per_mapping(self.kernel_page_size)
    }

    fn copy(&self, segments: &mut [CopySegment<'_>]) -> io::Result<()> {
        // gntdev says of each segment that it is done before it has Xen copy the first ones.
        self.table.copy_faults.call().inspect_err(|_| {
            segments.iter_mut().for_each(|segment| segment.set_status(GNTST_OKAY));
        })?;
        if segments.iter().any(|s| usize::from(s.offset()) + s.len() > PAGE_SIZE) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut state = lock(&self.table.state);
        state.copies += 1;
        state.segments += segments.len() as u64;
        let bad = state.bad_segment.take_if(|(index, _)| *index < segments.len());
        for (index, segment) in segments.iter_mut().enumerate() {
            let status = match bad {
                Some((at, status)) if at == index => status,
                _ => self.copy_segment(&state, segment),
            };
            segment.set_status(status);
        }
        Ok(())
    }

    fn unmap_failures(&self) -> u64 {
        lock(&self.table.state).unmap_failures
    }
}

impl Unmap for Table {
    fn unmap(&self, index: u64, _count: u32) {
        let fault = self.unmap_faults.call();
        let mut state = lock(&self.state);
        if fault.is_err() {
            state.unmap_failures += 1;
            return;
        }
        self.held.remove();
        for gref in state.mappings.remove(&index).unwrap_or_default() {
            if let Some(grant) = state.grants.get_mut(&gref) {
                grant.mapped -= 1;
            }
        }
    }
}
