//! A guest's memory: two mappings side by side, so that buffers cross from one into the other,
//! whose look-ups are counted and give the driver its chance to change something.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, Permissions};

/// Bytes of guest memory, from address 0 on.
pub const SIZE: usize = 0x2000;

/// A change of one byte, made by another CPU of the guest.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    /// Where; addresses wrap at [`SIZE`].
    pub addr: u16,
    /// What is there from now on.
    pub value: u8,
}

/// Guest memory that changes under its reader.
#[derive(Debug)]
pub struct Memory {
    ram: GuestMemoryMmap<()>,
    lookups: AtomicU64,
    /// Still to be made, the last one first: one at each look-up.
    patches: Mutex<Vec<Patch>>,
}

thread_local! {
    /// Mapping anew for each input would cost more than most inputs do.
    static MEMORY: OnceCell<Arc<Memory>> = const { OnceCell::new() };
}

impl Memory {
    /// This thread's memory: `contents`, then `fill`.
    pub fn with(contents: &[u8], fill: u8) -> Arc<Self> {
        let memory = MEMORY.with(|memory| Arc::clone(memory.get_or_init(Self::map)));
        memory.lookups.store(0, Ordering::Relaxed);
        memory.set_patches(Vec::new());
        let mut bytes = vec![fill; SIZE];
        let len = contents.len().min(SIZE);
        bytes[..len].copy_from_slice(&contents[..len]);
        memory.put(0, &bytes);
        memory
    }

    fn map() -> Arc<Self> {
        let half = SIZE / 2;
        let ranges = [(GuestAddress(0), half), (GuestAddress(half as u64), half)];
        Arc::new(Self {
            ram: GuestMemoryMmap::from_ranges(&ranges).expect("two mappings"),
            lookups: AtomicU64::new(0),
            patches: Mutex::default(),
        })
    }

    /// Has the driver make these changes, one at each look-up.
    pub fn set_patches(&self, mut patches: Vec<Patch>) {
        patches.reverse();
        *self.patches.lock().unwrap_or_else(PoisonError::into_inner) = patches;
    }

    /// How often an address was looked up so far.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// The driver's own store; what is not in memory goes nowhere.
    pub fn put(&self, addr: u64, data: &[u8]) {
        let _ = self.ram.write_slice(data, GuestAddress(addr));
    }

    /// The driver's own load; what is not in memory reads as zeroes.
    pub fn get<const N: usize>(&self, addr: u64) -> [u8; N] {
        let mut data = [0; N];
        let _ = self.ram.read_slice(&mut data, GuestAddress(addr));
        data
    }

    /// As [`get`](Self::get), any number of bytes.
    pub fn bytes(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let _ = self.ram.read_slice(&mut data, GuestAddress(addr));
        data
    }

    /// All of it.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        self.ram.read_slice(&mut bytes, GuestAddress(0)).expect("all of memory");
        bytes
    }

    fn turn(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let patch = self.patches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(Patch { addr, value }) = patch {
            self.put(u64::from(addr) % SIZE as u64, &[value]);
        }
    }
}

impl GuestMemory for Memory {
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.ram, addr, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
        self.turn();
        GuestMemory::get_slices(&self.ram, addr, count, access)
    }
}
