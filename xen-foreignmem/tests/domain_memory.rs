//! A guest's memory through both address spaces.

use std::sync::{Arc, Barrier};

use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions,
};
use xen_foreignmem::fake::{Busy, FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout, PAGE_SIZE, Requests};

const PAGE: u64 = PAGE_SIZE as u64;
const LOW: u64 = 0x4000_0000;
const HIGH: u64 = 0x2_0000_0000;
const CHUNK: u64 = 4 * PAGE;

struct Guest {
    ram: Arc<FakeRam>,
    foreign: Arc<FakeForeignMemory>,
    grants: Arc<FakeGrantTable>,
}

type Memory = DomainMemory<FakeForeignMemory, FakeGrantTable>;

impl Guest {
    /// 16 pages from [`LOW`] on, 6 from [`HIGH`] on.
    fn new() -> Self {
        let ram = Arc::new(FakeRam::new(3, &[(LOW, 16 * PAGE), (HIGH, 6 * PAGE)]));
        let foreign = Arc::new(FakeForeignMemory::new(ram.clone()));
        let grants = Arc::new(FakeGrantTable::new(ram.clone()));
        Self { ram, foreign, grants }
    }

    fn memory(&self, layout: Layout) -> Memory {
        DomainMemory::new(Some(self.foreign.clone()), Some(self.grants.clone()), layout)
    }

    fn grant(&self, page: u64, readonly: bool) -> u32 {
        self.grants.grant((LOW / PAGE) + page, readonly)
    }
}

fn layout() -> Layout {
    Layout::arm().chunk_size(CHUNK).unwrap()
}

fn at(addr: u64) -> GuestAddress {
    GuestAddress(addr)
}

fn granted(gref: u32, offset: u64) -> GuestAddress {
    GuestAddress(GRANT_BIT | u64::from(gref) << 12 | offset)
}

fn lens<M: GuestMemory>(memory: &M, addr: GuestAddress, len: usize) -> Vec<usize> {
    let slices = memory.get_slices(addr, len, Permissions::Read).unwrap();
    slices.map(|slice| slice.unwrap().len()).collect()
}

#[test]
fn both_banks_are_reached_and_ranges_span_chunks() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let request = memory.requests().memory();
    guest.ram.write(HIGH + 5 * PAGE, b"high").unwrap();
    assert_eq!(&request.read_obj::<[u8; 4]>(at(HIGH + 5 * PAGE)).unwrap(), b"high");
    request.write_slice(&[7; 3 * CHUNK as usize], at(LOW + 100)).unwrap();
    let mut seen = vec![0; 3 * CHUNK as usize + 2];
    guest.ram.read(LOW + 99, &mut seen).unwrap();
    assert_eq!((seen[0], seen[seen.len() - 1]), (0, 0));
    assert!(seen[1..seen.len() - 1].iter().all(|&byte| byte == 7));
    let chunk = CHUNK as usize;
    assert_eq!(lens(&*request, at(LOW + 100), 3 * chunk), [chunk - 100, chunk, chunk, 100]);
}

#[test]
fn nonsense_is_an_error() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    for guard in [memory.requests().memory(), memory.rings().memory()] {
        let end = LOW + 16 * PAGE;
        for (addr, len) in [
            (LOW - 1, 1),
            (LOW - 1, 2),
            (end, 1),
            (0xffff_ffff, 2),
            (LOW, 3 << 30 | 1),
            (LOW, usize::MAX),
            (GRANT_BIT - 1, 2),
            (u64::MAX, 1),
            (u64::MAX, usize::MAX),
            (GRANT_BIT | u64::from(u32::MAX) << 12, PAGE_SIZE + 1),
            (GRANT_BIT | 999 << 12, 8),
            (GRANT_BIT | 999 << 12, 3 * PAGE_SIZE),
        ] {
            for access in [Permissions::Read, Permissions::Write, Permissions::ReadWrite] {
                if access == Permissions::Write && addr == GRANT_BIT | 999 << 12 && len == 8 {
                    // Copied, so found out when it is copied to the guest.
                    continue;
                }
                let result = guard.get_slices(at(addr), len, access);
                let failed = match result {
                    Err(_) => true,
                    Ok(mut slices) => slices.next().expect("never empty").is_err(),
                };
                assert!(failed, "{addr:#x} {len:#x}");
            }
        }
        assert!(!guard.check_range(at(0xffff_ffff), 2, Permissions::Read));
        assert!(!guard.check_range(at(u64::MAX), 1, Permissions::Read));
        assert!(guard.check_range(at(LOW), 3 << 30, Permissions::Read));
        assert!(lens(&*guard, at(LOW), 0).is_empty());
        assert!(guard.load::<u32>(at(5), std::sync::atomic::Ordering::Relaxed).is_err());
    }
}

#[test]
fn the_end_of_ram_ends_a_range_with_an_error() {
    let guest = Guest::new();
    let request = guest.memory(layout()).requests().memory();
    let mut slices =
        request.get_slices(at(HIGH + 5 * PAGE), 2 * PAGE_SIZE, Permissions::Read).unwrap();
    assert_eq!(slices.next().unwrap().unwrap().len(), PAGE_SIZE);
    assert!(slices.next().unwrap().is_err());
    assert!(slices.next().is_none(), "an error is the last item");
}

#[test]
fn a_kind_of_memory_that_is_not_there_is_an_error() {
    let guest = Guest::new();
    let gref = guest.grant(0, false);
    let only_grants: Memory = DomainMemory::new(None, Some(guest.grants.clone()), layout());
    let request = only_grants.requests().memory();
    assert!(matches!(
        request.read_obj::<u8>(at(LOW)),
        Err(GuestMemoryError::InvalidGuestAddress(_))
    ));
    assert!(!request.check_range(at(LOW), 1, Permissions::Read));
    assert!(request.read_obj::<u8>(granted(gref, 0)).is_ok());
    assert!(only_grants.map_whole(LOW..LOW + PAGE).is_err());

    let only_ram: Memory = DomainMemory::new(Some(guest.foreign.clone()), None, layout());
    for guard in [only_ram.requests().memory(), only_ram.rings().memory()] {
        assert!(guard.read_obj::<u8>(granted(gref, 0)).is_err());
        assert!(!guard.check_range(granted(gref, 0), 1, Permissions::Read));
        assert!(guard.read_obj::<u8>(at(LOW)).is_ok());
    }
}

#[test]
fn chunks_are_mapped_once() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = [memory.requests(), memory.requests()];
    for round in 0..20 {
        for requests in &requests {
            let request = requests.memory();
            request.write_obj(round, at(LOW + round * 8)).unwrap();
            request.write_obj(round, at(LOW + CHUNK + round * 8)).unwrap();
        }
    }
    let stats = memory.stats();
    assert_eq!((stats.chunks, stats.bytes), (2, 2 * CHUNK));
    assert_eq!(stats.map_calls, 4, "a probe and a chunk, twice");
    assert_eq!(guest.foreign.live_pages() * PAGE, stats.bytes);
    drop(requests);
    drop(memory);
    assert_eq!(guest.foreign.live_mappings(), 0);
}

#[test]
fn whole_ranges_are_mapped_in_advance_as_far_as_there_is_memory() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    memory.map_whole(LOW..LOW + 64 * PAGE).unwrap();
    memory.map_whole(HIGH..HIGH + 6 * PAGE).unwrap();
    let stats = memory.stats();
    assert_eq!(stats.chunks, 4 + 2);
    let request = memory.requests().memory();
    request.write_slice(&[1; 16 * PAGE_SIZE], at(LOW)).unwrap();
    request.write_slice(&[1; 6 * PAGE_SIZE], at(HIGH)).unwrap();
    assert_eq!(memory.stats().map_calls, stats.map_calls);
    assert!(memory.map_whole(0xffff_f000..0x1_0000_1000).is_err(), "not in a bank");
    let small = guest.memory(layout().budget(2 * CHUNK));
    let error = small.map_whole(LOW..LOW + 16 * PAGE).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOMEM));
    assert_eq!(small.stats().chunks, 2);
}

#[test]
fn invalidate_unmaps_what_no_guard_holds() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let held = requests.memory();
    held.write_obj(1_u8, at(LOW)).unwrap();
    requests.memory().write_obj(1_u8, at(HIGH)).unwrap();
    let slice = held.get_slices(at(LOW), 1, Permissions::Write).unwrap().next().unwrap().unwrap();
    guest.ram.balloon_out(LOW / PAGE);
    memory.invalidate();
    assert_eq!(memory.stats().chunks, 1);
    slice.store(9_u8, 0, std::sync::atomic::Ordering::Relaxed).unwrap();
    assert_eq!(held.read_obj::<u8>(at(LOW)).unwrap(), 9, "it keeps the page it has");
    assert!(requests.memory().read_obj::<u8>(at(LOW)).is_err(), "no longer there");
    guest.ram.balloon_in(LOW / PAGE);
    guest.ram.write(LOW, &[5]).unwrap();
    assert_eq!(requests.memory().read_obj::<u8>(at(LOW)).unwrap(), 5, "mapped anew");
    drop(held);
    assert_eq!(memory.stats().chunks, 1);
}

#[test]
fn a_hole_is_an_error_until_the_guest_fills_it() {
    let guest = Guest::new();
    guest.ram.balloon_out(LOW / PAGE + 1);
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let request = requests.memory();
    request.write_obj(1_u8, at(LOW)).unwrap();
    let calls = memory.stats().map_calls;
    for _ in 0..3 {
        assert!(request.write_slice(&[2; 3 * PAGE_SIZE], at(LOW)).is_err());
        assert!(request.read_obj::<u8>(at(LOW + PAGE)).is_err());
    }
    assert_eq!(memory.stats().map_calls, calls + 6, "each costs one page's call");
    assert_eq!(request.read_obj::<u8>(at(LOW + 2 * PAGE)).unwrap(), 0, "behind the hole");
    guest.ram.balloon_in(LOW / PAGE + 1);
    request.write_slice(&[3; 3 * PAGE_SIZE], at(LOW)).unwrap();
    requests.memory().write_slice(&[3; 3 * PAGE_SIZE], at(LOW)).unwrap();
    let mut seen = [0; 3 * PAGE_SIZE];
    guest.ram.read(LOW, &mut seen).unwrap();
    assert_eq!(seen, [3; 3 * PAGE_SIZE]);
    drop(request);
    assert_eq!(memory.stats().chunks, 1);
}

#[test]
fn the_budget_holds_and_the_least_recently_used_chunk_goes() {
    let guest = Guest::new();
    let memory = guest.memory(layout().budget(2 * CHUNK));
    let requests = memory.requests();
    let touch = |chunk| requests.memory().read_obj::<u8>(at(LOW + chunk * CHUNK)).map(|_| ());
    let mapped = || memory.stats().map_calls;
    touch(0).unwrap();
    touch(1).unwrap();
    touch(0).unwrap();
    touch(2).unwrap();
    let before = mapped();
    touch(0).unwrap();
    assert_eq!(mapped(), before, "0 was used after 1, and stayed");
    touch(1).unwrap();
    assert_eq!(mapped(), before + 2);
    assert_eq!((memory.stats().chunks, memory.stats().evictions), (2, 2));

    let holder = requests.memory();
    holder.read_obj::<u8>(at(LOW)).unwrap();
    holder.read_obj::<u8>(at(LOW + CHUNK)).unwrap();
    assert!(touch(3).is_err(), "all of the budget is in use");
    assert!(holder.read_obj::<u8>(at(LOW + 2 * CHUNK)).is_err());
    drop(holder);
    touch(3).unwrap();
    assert!(guest.foreign.peak_pages() * PAGE <= 2 * CHUNK + PAGE, "the probe is one page more");
    let tiny = guest.memory(layout().budget(CHUNK - 1));
    assert!(tiny.requests().memory().read_obj::<u8>(at(LOW)).is_err());
}

#[test]
fn rings_in_grants_are_shared_until_the_guard_and_its_clones_are_gone() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let gref = guest.grants.grant_all(&[LOW / PAGE + 9, LOW / PAGE + 3], false);
    let rings = memory.rings();
    let guard = rings.memory();
    assert_eq!(guard.read_obj::<u16>(granted(gref, 4094)).unwrap(), 0);
    assert_eq!(lens(&*guard, granted(gref, 4094), 8), [8], "two pages, one after the other");
    guard.write_obj(0x1234_u16, granted(gref, 8)).unwrap();
    let mut seen = [0; 2];
    guest.ram.read(LOW + 9 * PAGE + 8, &mut seen).unwrap();
    assert_eq!(u16::from_le_bytes(seen), 0x1234, "seen at once");
    guest.ram.write(LOW + 3 * PAGE, &[5]).unwrap();
    assert_eq!(guard.read_obj::<u8>(granted(gref + 1, 0)).unwrap(), 5);
    let clone = guard.clone();
    drop(guard);
    assert_eq!(guest.grants.end_access(gref), Err(Busy(gref)));
    drop(clone);
    assert_eq!(guest.grants.end_access(gref), Ok(()));
    assert_eq!(guest.grants.live_mappings(), 0);
}

#[test]
fn rings_read_what_is_granted_read_only() {
    let guest = Guest::new();
    let guard = guest.memory(layout()).rings().memory();
    let gref = guest.grant(1, true);
    guest.ram.write(LOW + PAGE, &[6]).unwrap();
    assert_eq!(guard.read_obj::<u8>(granted(gref, 0)).unwrap(), 6);
    assert!(guard.write_obj(1_u8, granted(gref, 0)).is_err());
}

#[test]
fn long_granted_ranges_are_mapped_and_given_back_as_the_guard_drops() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let frames: Vec<_> = (0..4).map(|page| LOW / PAGE + 3 * page).collect();
    let readable = guest.grants.grant_all(&frames, true);
    let writable = guest.grants.grant_all(&frames, false);
    let requests = memory.requests();
    let request = requests.memory();
    let len = 3 * PAGE_SIZE;
    guest.ram.write(LOW + 3 * PAGE, &[8]).unwrap();
    assert_eq!(lens(&*request, granted(readable, 100), len), [len]);
    assert_eq!(request.read_obj::<u8>(granted(readable + 1, 0)).unwrap(), 8);
    assert!(request.write_slice(&[0; 3 * PAGE_SIZE], granted(readable, 100)).is_err());
    request.write_slice(&[9; 3 * PAGE_SIZE], granted(writable, 100)).unwrap();
    let mut seen = [0];
    guest.ram.read(LOW + 6 * PAGE, &mut seen).unwrap();
    assert_eq!(seen, [9], "seen at once");
    assert_eq!((guest.grants.live_mappings(), guest.grants.copies()), (2, 0));
    let clone = request.clone();
    drop(request);
    assert_eq!(guest.grants.end_access(writable), Err(Busy(writable)));
    drop(clone);
    assert_eq!((guest.grants.live_mappings(), guest.grants.end_access(writable)), (0, Ok(())));
    assert_eq!(memory.stats().grant_maps, 3, "one of them failed");
}

#[test]
fn short_granted_ranges_are_copied_in_and_out_in_one_call() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let header = guest.grant(0, true);
    let data = guest.grant(1, false);
    let status = guest.grant(2, false);
    guest.ram.write(LOW + 16, b"header").unwrap();
    guest.ram.write(LOW + PAGE, &[0xee; 4096]).unwrap();
    let request = memory.requests().memory();
    let mut seen = [0; 6];
    request.read_slice(&mut seen, granted(header, 16)).unwrap();
    assert_eq!(&seen, b"header");
    request.read_slice(&mut seen, granted(header, 16)).unwrap();
    assert_eq!(guest.grants.copies(), 1, "the second time it was there");
    request.write_slice(&[1; 512], granted(data, 512)).unwrap();
    request.write_slice(&[2; 512], granted(data, 2048)).unwrap();
    request.write_obj(0_u8, granted(status, 3)).unwrap();
    let mut page = [0; 4096];
    guest.ram.read(LOW + PAGE, &mut page).unwrap();
    assert_eq!(page, [0xee; 4096], "not before the request ends");
    drop(request);
    guest.ram.read(LOW + PAGE, &mut page).unwrap();
    let mut expected = [0xee; 4096];
    expected[512..1024].fill(1);
    expected[2048..2560].fill(2);
    assert_eq!(page, expected, "what was written, and nothing beside it");
    assert_eq!((guest.grants.copies(), guest.grants.segments()), (2, 4));
    assert_eq!((guest.grants.mapped_ever(), memory.stats().copy_failures), (0, 0));
}

#[test]
fn a_copied_range_over_two_pages_is_two_slices() {
    let guest = Guest::new();
    let gref = guest.grants.grant_all(&[LOW / PAGE, LOW / PAGE + 5], false);
    guest.ram.write(LOW + 4090, b"abcdef").unwrap();
    guest.ram.write(LOW + 5 * PAGE, b"ghi").unwrap();
    let memory = guest.memory(layout());
    let request = memory.requests().memory();
    assert_eq!(lens(&*request, granted(gref, 4090), 9), [6, 3]);
    assert_eq!(&request.read_obj::<[u8; 9]>(granted(gref, 4090)).unwrap(), b"abcdefghi");
    request.write_slice(b"ABCDEFGHI", granted(gref, 4090)).unwrap();
    assert_eq!(&request.read_obj::<[u8; 3]>(granted(gref, 4095)).unwrap(), b"FGH");
    drop(request);
    let mut seen = [0; 3];
    guest.ram.read(LOW + 5 * PAGE, &mut seen).unwrap();
    assert_eq!(&seen, b"GHI");
}

#[test]
fn no_byte_of_one_request_is_seen_by_another() {
    let guest = Guest::new();
    let memory = guest.memory(layout().bounce_pages(1));
    let (one, other) = (guest.grant(0, false), guest.grant(1, false));
    let requests = memory.requests();
    requests.memory().write_slice(&[0x55; 4096], granted(one, 0)).unwrap();
    let request = requests.memory();
    let slice = request.get_slices(granted(other, 0), 4096, Permissions::Write).unwrap().next();
    let mut seen = [1_u8; 4096];
    slice.unwrap().unwrap().copy_to(&mut seen[..]);
    assert!(seen.iter().all(|&byte| byte == 0));
    drop(request);
    assert_eq!(guest.grants.mapped_ever(), 0);
}

#[test]
fn when_the_pool_is_used_up_grants_are_mapped() {
    let guest = Guest::new();
    let memory = guest.memory(layout().bounce_pages(1));
    let grefs = [guest.grant(0, false), guest.grant(1, false)];
    let requests = memory.requests();
    let request = requests.memory();
    for gref in grefs {
        request.write_obj(7_u8, granted(gref, 0)).unwrap();
    }
    assert_eq!(guest.grants.live_mappings(), 1);
    drop(request);
    for page in 0..2 {
        let mut seen = [0];
        guest.ram.read(LOW + page * PAGE, &mut seen).unwrap();
        assert_eq!(seen, [7]);
    }
    requests.memory().write_obj(7_u8, granted(grefs[1], 0)).unwrap();
    assert_eq!(guest.grants.mapped_ever(), 1, "the page came back");
}

#[test]
fn never_copying_is_a_choice() {
    let guest = Guest::new();
    let memory = guest.memory(layout().copy_max(0));
    let gref = guest.grant(0, true);
    let request = memory.requests().memory();
    request.read_obj::<u8>(granted(gref, 0)).unwrap();
    assert_eq!((guest.grants.live_mappings(), guest.grants.copies()), (1, 0));
}

#[test]
fn failures_to_copy_in_are_errors_and_to_copy_out_are_counted() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let readonly = guest.grant(0, true);
    let gref = guest.grant(1, false);

    let request = requests.memory();
    guest.grants.copy_faults().fail_nth(0, libc::EFAULT);
    assert!(request.read_obj::<u8>(granted(gref, 0)).is_err());
    guest.grants.fail_segment(0, -9);
    assert!(request.read_obj::<u8>(granted(gref, 0)).is_err());
    assert_eq!(request.read_obj::<u8>(granted(gref, 0)).unwrap(), 0, "the third time it works");
    drop(request);
    assert_eq!(memory.stats().copy_failures, 0);

    let request = requests.memory();
    request.write_obj(1_u8, granted(readonly, 0)).unwrap();
    request.write_obj(1_u8, granted(gref, 0)).unwrap();
    drop(request);
    assert_eq!(memory.stats().copy_failures, 1);
    let mut seen = [0];
    guest.ram.read(LOW + PAGE, &mut seen).unwrap();
    assert_eq!(seen, [1], "the other one was copied");

    let request = requests.memory();
    request.write_obj(1_u8, granted(gref, 0)).unwrap();
    request.write_obj(1_u8, granted(gref, 9)).unwrap();
    guest.grants.copy_faults().fail_nth(0, libc::EINVAL);
    drop(request);
    assert_eq!(memory.stats().copy_failures, 3);
}

#[test]
fn failures_to_map_and_unmap_are_errors_and_counts() {
    let guest = Guest::new();
    let memory = guest.memory(layout().copy_max(0));
    let requests = memory.requests();
    let gref = guest.grant(0, false);
    let request = requests.memory();
    guest.grants.map_faults().fail_nth(0, libc::ENOMEM);
    let error = request.read_obj::<u8>(granted(gref, 0)).unwrap_err();
    let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
    assert!(error.to_string().starts_with("domain 3: cannot map grant 8:"), "{error}");
    request.read_obj::<u8>(granted(gref, 0)).unwrap();
    guest.grants.unmap_faults().fail_nth(0, libc::EINVAL);
    drop(request);
    assert_eq!(memory.stats().unmap_failures, 1);

    guest.foreign.map_faults().fail_nth(1, libc::ENOMEM);
    let request = requests.memory();
    assert!(request.read_obj::<u8>(at(LOW)).is_err());
    assert_eq!(guest.foreign.live_mappings(), 0);
    request.read_obj::<u8>(at(LOW)).unwrap();
}

#[test]
fn one_guard_maps_so_many_grants() {
    let guest = Guest::new();
    let memory = guest.memory(layout().grants_per_guard(4));
    let frames: Vec<_> = (0..6).map(|page| LOW / PAGE + page).collect();
    let gref = guest.grants.grant_all(&frames, false);
    let requests = memory.requests();
    let request = requests.memory();
    assert_eq!(lens(&*request, granted(gref, 0), 3 * PAGE_SIZE), [3 * PAGE_SIZE]);
    assert!(request.get_slices(granted(gref + 3, 0), 2 * PAGE_SIZE, Permissions::Read).is_err());
    drop(request);
    let request = requests.memory();
    assert_eq!(lens(&*request, granted(gref, 0), 4 * PAGE_SIZE), [4 * PAGE_SIZE]);
}

#[test]
fn a_larger_range_after_a_smaller_one_sees_its_bytes() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let gref = guest.grants.grant_all(&[LOW / PAGE, LOW / PAGE + 1], false);
    let request = memory.requests().memory();
    request.write_slice(b"small", granted(gref, 10)).unwrap();
    let mut seen = [0; 5000];
    request.read_slice(&mut seen, granted(gref, 0)).unwrap();
    assert_eq!(&seen[10..15], b"small");
    request.write_slice(&[4; 5000], granted(gref, 0)).unwrap();
    drop(request);
    guest.ram.read(LOW + 10, &mut seen[..5]).unwrap();
    assert_eq!(&seen[..5], [4; 5], "and does not undo what was written since");
}

#[test]
fn queues_and_invalidations_run_side_by_side() {
    let guest = Guest::new();
    let memory = guest.memory(layout().budget(4 * CHUNK).bounce_pages(2));
    let start = Barrier::new(3);
    let worker = |requests: Requests<_, _>, slot: u64| {
        let grefs: Vec<_> = (0..4).map(|page| guest.grant(4 * slot + page, false)).collect();
        start.wait();
        for round in 0..500_u64 {
            let page = round % 4;
            let addr = LOW + (4 * slot + page) * PAGE + 8 * (round % 100);
            requests.memory().write_obj(round, at(addr)).unwrap();
            let request = requests.memory();
            let seen = request.read_obj::<u64>(granted(grefs[page as usize], addr % PAGE)).unwrap();
            assert_eq!(seen, round);
            request.write_obj(!round, granted(grefs[page as usize], 4000)).unwrap();
            let clone = request.clone();
            std::thread::scope(|scope| {
                if round % 16 == 0 {
                    scope.spawn(move || drop(clone));
                }
                drop(request);
            });
        }
        for gref in grefs {
            assert_eq!(guest.grants.end_access(gref), Ok(()));
        }
    };
    std::thread::scope(|scope| {
        let queues = [memory.requests(), memory.requests()];
        for (slot, requests) in queues.into_iter().enumerate() {
            let worker = &worker;
            scope.spawn(move || worker(requests, slot as u64 * 2));
        }
        start.wait();
        for _ in 0..200 {
            memory.invalidate();
            std::thread::yield_now();
        }
    });
    memory.invalidate();
    assert_eq!((memory.stats().chunks, guest.foreign.live_mappings()), (0, 0));
    assert_eq!((guest.grants.live_mappings(), memory.stats().copy_failures), (0, 0));
}

#[test]
fn everything_can_go_to_another_thread() {
    fn check<T: Send + Sync>() {}
    check::<Memory>();
    check::<Requests<FakeForeignMemory, FakeGrantTable>>();
    check::<xen_foreignmem::Rings<FakeForeignMemory, FakeGrantTable>>();
    check::<xen_foreignmem::Guard<FakeForeignMemory, FakeGrantTable>>();
    check::<xen_foreignmem::Mapping>();
    check::<xen_foreignmem::MapError>();
    check::<(xen_foreignmem::Privcmd, xen_foreignmem::Gntdev)>();
}
