//! Serving a request allocates nothing once the first ones are through.
#![cfg(not(miri))]

use std::alloc::{GlobalAlloc, Layout as Size, System};
use std::cell::Cell;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, size: Size) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, size: Size) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn requests_in_ram_and_in_copied_grants_allocate_nothing() {
    let ram = Arc::new(FakeRam::new(1, &[(0x4000_0000, 8 << 20)]));
    let grants = Arc::new(FakeGrantTable::new(ram.clone()));
    let gref = grants.grant_all(&[0x40000, 0x40001, 0x40002], false);
    let foreign = Arc::new(FakeForeignMemory::new(ram.clone()));
    let memory = DomainMemory::new(Some(foreign), Some(grants), Layout::arm());
    let requests = memory.requests();
    let granted = |page| GuestAddress(GRANT_BIT | u64::from(gref + page) << 12);
    let serve = || {
        let before = ALLOCATIONS.get();
        let requests_in_flight = [(); 4].map(|()| requests.memory());
        for request in &requests_in_flight {
            let clone = request.clone();
            request.read_obj::<[u8; 16]>(GuestAddress(0x4000_0000)).unwrap();
            request.write_slice(&[1; 4096], GuestAddress(0x4020_0800)).unwrap();
            clone.write_obj(0_u8, GuestAddress(0x4070_0000)).unwrap();
            request.read_obj::<[u8; 16]>(granted(0)).unwrap();
            request.write_slice(&[1; 4096], granted(1)).unwrap();
            clone.write_obj(0_u8, granted(2)).unwrap();
        }
        drop(requests_in_flight);
        ALLOCATIONS.get() - before
    };
    assert!(serve() > 0, "the counter counts");
    // Every page for copies gets its lists once, in whatever order they are used.
    for _ in 0..4 {
        serve();
    }
    assert_eq!(serve(), 0);
}
