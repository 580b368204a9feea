//! The part of a guest's kernel that hands its memory to a device: page allocation, and addresses that
//! are either plain or grants.

use std::{
    collections::HashMap,
    ptr::NonNull,
    sync::{Arc, Mutex},
    thread,
};

use vm_memory::{GuestAddress, GuestMemory, Permissions};
use xen_foreignmem::{
    PAGE_SIZE,
    fake::{FakeGrantTable, FakeRam},
};
use xen_ioreq::fake::FakeDomain;

const PAGE: u64 = PAGE_SIZE as u64;
/// Marks a grant (`XEN_GRANT_DMA_ADDR_OFF`, Linux drivers/xen/grant-dma-ops.c).
const GRANT: u64 = 1 << 63;

/// How the guest lets the backend reach its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The backend maps what it likes: a buffer's address is where it is.
    Foreign,
    /// Page by page: a buffer's address is a grant reference.
    Grant,
}

/// Guest memory given to a device.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// What the device is told.
    pub device: u64,
    /// Where it is in the guest.
    pub guest: u64,
    pages: u64,
}

impl Shared {
    /// How many pages it takes.
    pub fn pages(&self) -> u64 {
        self.pages
    }
}

/// One guest's memory, in the hands of its drivers.
pub struct GuestKernel {
    ram: Arc<FakeRam>,
    grants: Arc<FakeGrantTable>,
    sharing: Sharing,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Free runs of pages are looked for from here: the banks take turns.
    next_bank: usize,
    /// Page frame numbers in use.
    used: std::collections::BTreeSet<u64>,
    shared: HashMap<u64, Shared>,
}

impl GuestKernel {
    pub fn new(domain: &FakeDomain, sharing: Sharing) -> Arc<Self> {
        Arc::new(Self {
            ram: Arc::clone(domain.ram()),
            grants: domain.grant_table(),
            sharing,
            state: Mutex::default(),
        })
    }

    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    pub fn ram(&self) -> &FakeRam {
        &self.ram
    }

    /// Pages next to each other, zeroed, from each bank of RAM in turn.
    pub fn alloc(&self, pages: u64) -> u64 {
        let banks: Vec<_> = self.ram.banks().collect();
        let mut state = self.state.lock().unwrap();
        for turn in 0..banks.len() {
            let bank = &banks[(state.next_bank + turn) % banks.len()];
            let mut first = bank.start / PAGE;
            while (first + pages) * PAGE <= bank.end {
                match (first..first + pages).rev().find(|gfn| state.used.contains(gfn)) {
                    Some(taken) => first = taken + 1,
                    None => {
                        state.used.extend(first..first + pages);
                        state.next_bank = state.next_bank + turn + 1;
                        self.ram.write(first * PAGE, &vec![0; (pages * PAGE) as usize]).unwrap();
                        return first * PAGE;
                    }
                }
            }
        }
        panic!("the guest is out of memory");
    }

    pub fn free(&self, guest: u64, pages: u64) {
        let mut state = self.state.lock().unwrap();
        for gfn in guest / PAGE..guest / PAGE + pages {
            assert!(state.used.remove(&gfn), "freed twice: frame {gfn:#x}");
        }
    }

    /// Lets the device reach `len` bytes at `guest`, of pages of their own.
    pub fn share(&self, guest: u64, len: u64, readonly: bool) -> Shared {
        let pages = (guest % PAGE + len).div_ceil(PAGE);
        let device = match self.sharing {
            Sharing::Foreign => guest,
            Sharing::Grant => {
                let gfns: Vec<_> = (guest / PAGE..guest / PAGE + pages).collect();
                let gref = self.grants.grant_all(&gfns, readonly);
                GRANT | (u64::from(gref) * PAGE) | (guest % PAGE)
            }
        };
        let shared = Shared { device, guest, pages };
        self.state.lock().unwrap().shared.insert(device, shared);
        shared
    }

    /// Takes memory back. Fails like Linux's grant-dma-ops, which gives the device up for good when the
    /// backend still has the memory mapped at this moment.
    pub fn unshare(&self, device: u64) -> Shared {
        let shared = self.state.lock().unwrap().shared.remove(&device).expect("shared before");
        if self.sharing == Sharing::Grant {
            let first = (device & !GRANT) / PAGE;
            for gref in first..first + shared.pages {
                let ended = self.grants.end_access(u32::try_from(gref).unwrap());
                // A driver that is dropped by a test's failure must not hide that one.
                assert!(ended.is_ok() || thread::panicking(), "{ended:?}: given back, yet mapped");
            }
        }
        shared
    }

    /// Where `len` bytes at `guest` are in this process.
    pub fn pointer(&self, guest: u64, len: usize) -> NonNull<u8> {
        let slices = self.ram.get_slices(GuestAddress(guest), len, Permissions::ReadWrite);
        let slice = slices.unwrap().next().unwrap().unwrap();
        assert_eq!(slice.len(), len, "next to each other");
        NonNull::new(slice.ptr_guard_mut().as_ptr()).unwrap()
    }

    /// How many pages of the guest's are in use, for tests that count what is left.
    pub fn pages_in_use(&self) -> usize {
        self.state.lock().unwrap().used.len()
    }
}
