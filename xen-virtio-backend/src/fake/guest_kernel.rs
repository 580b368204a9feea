//! The part of a guest's kernel that hands its memory to a device: page allocation, and addresses that
//! are either plain or grants.

use std::{
    collections::{BTreeSet, HashMap},
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use vm_memory::{GuestAddress, GuestMemory, Permissions};
use xen_foreignmem::{
    PAGE_SIZE,
    fake::{FakeGrantTable, FakeRam},
};
use xen_ioreq::fake::FakeDomain;

use super::shared_pages::SharedPages;
use crate::node::Sharing;

const PAGE: u64 = PAGE_SIZE as u64;
/// Marks a grant (`XEN_GRANT_DMA_ADDR_OFF`, Linux drivers/xen/grant-dma-ops.c).
const GRANT: u64 = 1 << 63;

/// One guest's memory, in the hands of its drivers of devices that it shares memory with in one way.
#[derive(Debug)]
pub struct GuestKernel {
    ram: Arc<FakeRam>,
    grants: Arc<FakeGrantTable>,
    sharing: Sharing,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Free runs of pages are looked for from here: the banks take turns.
    next_bank: usize,
    /// Page frame numbers in use.
    used: BTreeSet<u64>,
    shared: HashMap<u64, SharedPages>,
}

impl GuestKernel {
    /// A kernel to whom all of the guest's memory is free: the first of this guest. Another one for the same guest is
    /// made by [`with_sharing`](Self::with_sharing).
    pub fn new(domain: &FakeDomain, sharing: Sharing) -> Arc<Self> {
        Arc::new(Self {
            ram: Arc::clone(domain.ram()),
            grants: domain.grant_table(),
            sharing,
            state: Arc::default(),
        })
    }

    /// The same kernel, as a device meets it that memory is shared with in this way.
    pub fn with_sharing(&self, sharing: Sharing) -> Arc<Self> {
        Arc::new(Self {
            ram: Arc::clone(&self.ram),
            grants: Arc::clone(&self.grants),
            sharing,
            state: Arc::clone(&self.state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How memory is shared with the device.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// The guest's RAM, as the guest sees it.
    pub fn ram(&self) -> &FakeRam {
        &self.ram
    }

    /// Pages next to each other, zeroed, from each bank of RAM in turn: the guest-physical address of the first.
    ///
    /// # Panics
    /// The guest is out of memory.
    pub fn alloc(&self, pages: u64) -> u64 {
        let banks: Vec<_> = self.ram.banks().collect();
        let mut state = self.state();
        for turn in 0..banks.len() {
            let bank = &banks[(state.next_bank + turn) % banks.len()];
            let mut first = bank.start / PAGE;
            while (first + pages) * PAGE <= bank.end {
                match (first..first + pages).rev().find(|gfn| state.used.contains(gfn)) {
                    Some(taken) => first = taken + 1,
                    None => {
                        state.used.extend(first..first + pages);
                        state.next_bank = state.next_bank + turn + 1;
                        let zeroes = vec![0; (pages * PAGE) as usize];
                        self.ram.write(first * PAGE, &zeroes).expect("the guest's RAM");
                        return first * PAGE;
                    }
                }
            }
        }
        panic!("the guest is out of memory");
    }

    /// Gives pages back that [`alloc`](Self::alloc) gave.
    ///
    /// # Panics
    /// One of them is free.
    pub fn free(&self, guest: u64, pages: u64) {
        let mut state = self.state();
        for gfn in guest / PAGE..guest / PAGE + pages {
            assert!(state.used.remove(&gfn), "freed twice: frame {gfn:#x}");
        }
    }

    /// Lets the device reach `len` bytes at `guest`, which have their pages to themselves. With `readonly`, a device
    /// that is granted them can't write there.
    ///
    /// # Panics
    /// It is more than 4 GiB.
    pub fn share(&self, guest: u64, len: u64, readonly: bool) -> SharedPages {
        let pages = (guest % PAGE + len).div_ceil(PAGE);
        let device = match self.sharing {
            Sharing::Foreign => guest,
            Sharing::Grant => {
                let gfns: Vec<_> = (guest / PAGE..guest / PAGE + pages).collect();
                let gref = self.grants.grant_all(&gfns, readonly);
                GRANT | (u64::from(gref) * PAGE) | (guest % PAGE)
            }
        };
        let len = u32::try_from(len).expect("a buffer of less than 4 GiB");
        let shared = SharedPages { device, guest, len, pages };
        self.state().shared.insert(device, shared);
        shared
    }

    /// Takes memory back from the device that has it at this address.
    ///
    /// # Panics
    /// The device wasn't given it, or it was granted and the backend still has it mapped: Linux's grant-dma-ops gives
    /// the device up for good then.
    pub fn unshare(&self, device: u64) -> SharedPages {
        let shared = self.state().shared.remove(&device).expect("shared before");
        if self.sharing == Sharing::Grant {
            let first = (device & !GRANT) / PAGE;
            for gref in first..first + shared.pages {
                let ended = self.grants.end_access(u32::try_from(gref).expect("a grant reference"));
                // A driver that is dropped by a test's failure must not hide that one.
                assert!(ended.is_ok() || thread::panicking(), "{ended:?}: given back, yet mapped");
            }
        }
        shared
    }

    /// Where `len` bytes at `guest` are in this process.
    ///
    /// # Panics
    /// They aren't the guest's, or not next to each other here.
    pub fn pointer(&self, guest: u64, len: usize) -> NonNull<u8> {
        let slices = self.ram.get_slices(GuestAddress(guest), len, Permissions::ReadWrite);
        let slice = slices.ok().and_then(|mut slices| slices.next()?.ok());
        let slice = slice.expect("memory of the guest's");
        assert_eq!(slice.len(), len, "next to each other");
        NonNull::new(slice.ptr_guard_mut().as_ptr()).expect("mapped memory")
    }

    /// How many pages of the guest's are in use, for tests that count what is left.
    pub fn pages_in_use(&self) -> usize {
        self.state().used.len()
    }
}
