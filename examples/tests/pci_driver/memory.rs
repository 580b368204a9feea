//! The memory that driver and device share.

use std::{cell::RefCell, collections::BTreeSet, ptr::NonNull, sync::Arc};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

pub(crate) type Ram = GuestMemoryMmap<()>;

/// Where the guest's memory begins.
const BASE: u64 = 0x4000_0000;
const PAGES: usize = 1024;

/// The guest's memory, and which of its pages are free.
pub(crate) struct Pages {
    ram: Arc<Ram>,
    free: BTreeSet<u64>,
}

thread_local! {
    /// Whose memory [`Dma`] hands out: `Hal` has no `self`.
    static PAGES_OF_THREAD: RefCell<Option<Pages>> = const { RefCell::new(None) };
}

/// The memory of a new guest, which is this thread's from now on.
pub(crate) fn new_guest() -> Arc<Ram> {
    let ram = Ram::from_ranges(&[(GuestAddress(BASE), PAGES * PAGE_SIZE)]).unwrap();
    let ram = Arc::new(ram);
    let free = (0..PAGES as u64).map(|page| BASE + page * PAGE_SIZE as u64).collect();
    PAGES_OF_THREAD.set(Some(Pages { ram: Arc::clone(&ram), free }));
    ram
}

fn with<T>(look: impl FnOnce(&mut Pages) -> T) -> T {
    PAGES_OF_THREAD.with_borrow_mut(|pages| look(pages.as_mut().expect("a guest")))
}

/// How many pages drivers have.
pub(crate) fn pages_in_use() -> usize {
    with(|pages| PAGES - pages.free.len())
}

impl Pages {
    /// Pages in a row, zeroed.
    fn alloc(&mut self, count: usize) -> u64 {
        let row = |first: u64| {
            let rest = (first..).step_by(PAGE_SIZE).take(count);
            rest.clone().all(|page| self.free.contains(&page)).then(|| rest.collect::<Vec<_>>())
        };
        let pages = self.free.iter().find_map(|first| row(*first)).expect("pages in a row");
        for page in &pages {
            self.free.remove(page);
        }
        self.ram.write_slice(&vec![0; count * PAGE_SIZE], GuestAddress(pages[0])).unwrap();
        pages[0]
    }

    fn free(&mut self, first: u64, count: usize) {
        self.free.extend((first..).step_by(PAGE_SIZE).take(count));
    }
}

/// DMA memory of the guest that this thread is.
pub(crate) struct Dma;

fn pages(offset: u64, len: usize) -> usize {
    (offset as usize + len).div_ceil(PAGE_SIZE)
}

// SAFETY: `dma_alloc` gives zeroed pages, at one address of this process as long as the guest's memory
// is there, that the allocator gives to nobody else until they are freed.
unsafe impl Hal for Dma {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        with(|pages| {
            let first = pages.alloc(count);
            let host = pages.ram.get_host_address(GuestAddress(first)).unwrap();
            (first, NonNull::new(host).expect("an address"))
        })
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _: NonNull<u8>, count: usize) -> i32 {
        with(|pages| pages.free(paddr, count));
        0
    }

    /// The BAR's, for `virtio-drivers`' own transport: plain memory that nobody answers.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _: usize) -> NonNull<u8> {
        let offset = paddr - u64::from(super::machine::BAR);
        with(|pages| {
            let host = pages.ram.get_host_address(GuestAddress(BASE + offset)).unwrap();
            NonNull::new(host).expect("an address")
        })
    }

    /// By way of pages of the buffer's own, at its own offset in a page.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let offset = buffer.cast::<u8>().addr().get() as u64 % PAGE_SIZE as u64;
        with(|guest| {
            let addr = guest.alloc(pages(offset, buffer.len())) + offset;
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller's buffer is valid and nobody else's for the time of this call.
                let bytes = unsafe { buffer.as_ref() };
                guest.ram.write_slice(bytes, GuestAddress(addr)).unwrap();
            }
            addr
        })
    }

    unsafe fn unshare(paddr: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        let offset = paddr % PAGE_SIZE as u64;
        with(|guest| {
            if direction != BufferDirection::DriverToDevice {
                // SAFETY: as in `share`.
                let bytes = unsafe { buffer.as_mut() };
                guest.ram.read_slice(bytes, GuestAddress(paddr)).unwrap();
            }
            guest.free(paddr - offset, pages(offset, buffer.len()));
        });
    }
}
