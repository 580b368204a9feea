//! Both address spaces against a model of the guest's memory: plain bytes.
#![cfg(not(miri))]

use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory, Permissions};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout, PAGE_SIZE};

const PAGES: usize = 32;
const SIZE: usize = PAGES * PAGE_SIZE;
const BASE: u64 = 0x4000_0000;
const GAP: u64 = 16 * PAGE_SIZE as u64;

/// One access of a request: to guest memory by its index, over RAM or over grants.
#[derive(Clone, Debug)]
struct Access {
    granted: bool,
    at: usize,
    len: usize,
    write: Option<u8>,
}

fn access() -> impl Strategy<Value = Access> {
    let len = prop_oneof![0..64_usize, 0..5000_usize, 0..30_000_usize];
    (any::<bool>(), 0..SIZE, len, any::<Option<u8>>())
        .prop_map(|(granted, at, len, write)| Access { granted, at, len, write })
}

/// A guest whose 32 pages of RAM lie in one bank, or in two or eight with gaps between.
struct Guest {
    ram: Arc<FakeRam>,
    banks: Vec<(u64, u64)>,
    first_gref: u32,
    grants: Arc<FakeGrantTable>,
    foreign: Arc<FakeForeignMemory>,
}

impl Guest {
    fn new(regions: usize) -> Self {
        Self::under(regions, PAGE_SIZE)
    }

    /// One whose backend's kernel has pages of this size.
    fn under(regions: usize, kernel_page_size: usize) -> Self {
        let len = (SIZE / regions) as u64;
        let banks: Vec<_> = (0..regions as u64).map(|n| (BASE + n * (len + GAP), len)).collect();
        let ram = Arc::new(FakeRam::new(1, &banks));
        let grants = FakeGrantTable::new(ram.clone()).with_kernel_page_size(kernel_page_size);
        let foreign = FakeForeignMemory::new(ram.clone()).with_kernel_page_size(kernel_page_size);
        let (grants, foreign) = (Arc::new(grants), Arc::new(foreign));
        let page = PAGE_SIZE as u64;
        let frames: Vec<_> =
            banks.iter().flat_map(|&(base, len)| base / page..(base + len) / page).collect();
        let first_gref = grants.grant_all(&frames, false);
        Self { ram, banks, first_gref, grants, foreign }
    }

    fn memory(&self, layout: Layout) -> DomainMemory<FakeForeignMemory, FakeGrantTable> {
        DomainMemory::new(Some(self.foreign.clone()), Some(self.grants.clone()), layout)
    }

    fn layout(&self, chunk_pages: u64) -> Layout {
        let banks = self.banks.iter().map(|&(base, len)| base..base + len);
        let layout = Layout::with_banks(banks).unwrap();
        layout.chunk_size(chunk_pages * PAGE_SIZE as u64).unwrap()
    }

    /// The address of a byte, by foreign mapping or grant, and where its range must end at the most.
    fn place(&self, access: &Access) -> (GuestAddress, usize) {
        if access.granted {
            let addr = GRANT_BIT | ((u64::from(self.first_gref) << 12) + access.at as u64);
            return (GuestAddress(addr), SIZE);
        }
        let len = SIZE / self.banks.len();
        let (base, _) = self.banks[access.at / len];
        (GuestAddress(base + (access.at % len) as u64), (access.at / len + 1) * len)
    }

    fn contents(&self) -> Vec<u8> {
        let mut all = vec![0; SIZE];
        for (part, &(base, len)) in all.chunks_mut(SIZE / self.banks.len()).zip(&self.banks) {
            assert_eq!(part.len(), len as usize);
            self.ram.read(base, part).unwrap();
        }
        all
    }
}

/// Has the model take the bytes of buffers that nobody filled for cleared, where they are found so.
fn adopt(model: &mut [u8], found: &[u8], unfilled: &[bool]) {
    for ((model, found), unfilled) in model.iter_mut().zip(found).zip(unfilled) {
        if *unfilled && *found == 0 {
            *model = 0;
        }
    }
}

fn check(guest: &Guest, layout: Layout, requests: &[Vec<Access>], rings: bool) {
    let memory = guest.memory(layout);
    let (for_rings, for_requests) = (memory.rings(), memory.requests());
    let mut model = guest.contents();
    for accesses in requests {
        let guard = if rings { for_rings.memory() } else { for_requests.memory() };
        // A request's accesses to RAM and to grants of the same page don't see each other while it
        // lasts, as grants may be copied; a guest that mixes them has itself to blame.
        let granted = accesses.first().is_some_and(|first| first.granted);
        // Where buffers were taken that nobody filled: what arrives there is cleared, or what was read before.
        let mut unfilled = vec![false; SIZE];
        // A buffer was taken that reaches beyond the grants, which is found out when it is copied to the guest. Until
        // then the request's other accesses may find it in its place.
        let mut taken_beyond = false;
        for access in accesses.iter().map(|a| Access { granted, ..a.clone() }) {
            let (addr, limit) = guest.place(&access);
            let end = access.at + access.len;
            let write = if access.write.is_some() { Permissions::Write } else { Permissions::Read };
            if end > limit {
                let failed = match guard.get_slices(addr, access.len, write) {
                    Err(_) => true,
                    Ok(mut slices) => slices.any(|slice| slice.is_err()),
                };
                // A copy that only goes to the guest is found out when it goes.
                taken_beyond |= !failed && granted && access.write.is_some();
                assert!(failed || taken_beyond, "{access:?}");
                if !failed && access.write.is_some() {
                    // Its bytes up to the end of the grants arrive.
                    unfilled[access.at..].fill(true);
                }
                continue;
            }
            match access.write {
                Some(value) => {
                    let bytes: Vec<_> =
                        (0..access.len).map(|n| value.wrapping_add(n as u8)).collect();
                    guard.write_slice(&bytes, addr).unwrap();
                    model[access.at..end].copy_from_slice(&bytes);
                    unfilled[access.at..end].fill(false);
                }
                None => {
                    let mut bytes = vec![0; access.len];
                    guard.read_slice(&mut bytes, addr).unwrap();
                    adopt(&mut model[access.at..end], &bytes, &unfilled[access.at..end]);
                    assert_eq!(bytes, model[access.at..end], "{access:?}");
                }
            }
        }
        drop(guard);
        assert_eq!(guest.grants.live_mappings(), 0);
        let contents = guest.contents();
        adopt(&mut model, &contents, &unfilled);
        assert!(contents == model, "after {accesses:?}");
    }
    drop((for_rings, for_requests, memory));
    assert_eq!(guest.foreign.live_mappings(), 0);
}

#[test]
fn what_is_read_beyond_the_grants_is_refused_unless_a_copy_to_there_waits() {
    let guest = Guest::new(1);
    let access = |at, len, write| Access { granted: true, at, len, write };
    let beyond = access(SIZE - 2000, 2001, None);
    let taken = access(SIZE - 3000, 4000, Some(7));
    let layout = guest.layout(1).copy_max(20_000).bounce_pages(6);
    check(&guest, layout.clone(), &[vec![beyond.clone()], vec![taken, beyond]], false);
}

#[test]
fn what_is_written_to_grants_that_were_mapped_for_reading_is_read_as_written() {
    let guest = Guest::new(1);
    // Too long to be copied, and short enough.
    let lens = [(0, 3 * PAGE_SIZE, None), (100, PAGE_SIZE, Some(7)), (90, 20, None)];
    let accesses = lens.map(|(at, len, write)| Access { granted: true, at, len, write });
    check(&guest, guest.layout(1).copy_max(PAGE_SIZE).bounce_pages(6), &[accesses.to_vec()], false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory_is_bytes(
        regions in prop::sample::select(vec![1_usize, 2, 8]),
        chunk_pages in prop::sample::select(vec![1_u64, 2, 4, 32]),
        copy_max in prop::sample::select(vec![0_usize, 100, 4096, 20_000]),
        bounce_pages in prop::sample::select(vec![0_usize, 1, 6, 64]),
        budget in prop::sample::select(vec![None, Some(2 * SIZE as u64)]),
        kernel_page_size in prop::sample::select(vec![4096_usize, 16384, 65536]),
        rings in any::<bool>(),
        requests in prop::collection::vec(prop::collection::vec(access(), 1..6), 1..8),
    ) {
        let guest = Guest::under(regions, kernel_page_size);
        for (n, &(base, len)) in guest.banks.iter().enumerate() {
            guest.ram.write(base, &vec![n as u8 + 1; len as usize]).unwrap();
        }
        let layout = guest.layout(chunk_pages).copy_max(copy_max).bounce_pages(bounce_pages);
        let layout = match budget {
            Some(bytes) => layout.budget(bytes * (kernel_page_size / PAGE_SIZE) as u64),
            None => layout,
        };
        check(&guest, layout, &requests, rings);
    }

    #[test]
    fn no_address_panics(
        addr in prop_oneof![
            any::<u64>(),
            (0..=u64::from(u32::MAX) + 2).prop_map(|gref| GRANT_BIT | gref << 12),
            (0..0x40_u64 << 12).prop_map(|offset| BASE - 0x8000 + offset),
            (0..0x8000_u64).prop_map(|offset| u64::MAX - offset),
            (0..0x8000_u64).prop_map(|offset| GRANT_BIT - 0x4000 + offset),
        ],
        len in prop_oneof![0..3_usize, 0..100_000_usize, any::<usize>()],
        access in prop::sample::select(vec![
            Permissions::No, Permissions::Read, Permissions::Write, Permissions::ReadWrite,
        ]),
    ) {
        let guest = Guest::new(2);
        let memory = guest.memory(guest.layout(4));
        for guard in [memory.rings().memory(), memory.requests().memory()] {
            guard.check_range(GuestAddress(addr), len, access);
            let Ok(slices) = guard.get_slices(GuestAddress(addr), len, access) else { continue };
            let slices: Vec<_> = slices.collect();
            prop_assert_eq!(slices.is_empty(), len == 0);
            if slices.iter().all(|slice| slice.is_ok()) {
                let total: usize = slices.iter().flatten().map(|slice| slice.len()).sum();
                prop_assert_eq!(total, len);
            }
        }
    }
}
