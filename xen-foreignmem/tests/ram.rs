//! A guest's RAM: chunks, holes, the budget, INVALIDATE.
#![cfg(not(miri))]

mod common;

use vm_memory::{Bytes, GuestAddressSpace, GuestMemory, Permissions};
use xen_foreignmem::PAGE_SIZE;

use common::{CHUNK, Guest, HIGH, LOW, PAGE, at, layout, lens};

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
    let small = guest.memory(tight());
    let error = small.map_whole(LOW..LOW + 16 * PAGE).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::OutOfMemory);
    assert_eq!(small.stats().chunks, 2);
}

#[test]
fn invalidate_unmaps_what_no_guard_holds() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let held = requests.memory();
    held.write_obj(1_u8, at(LOW)).unwrap();
    // Not where the other chunk is remembered.
    requests.memory().write_obj(1_u8, at(HIGH + CHUNK)).unwrap();
    let slice = held.get_slices(at(LOW), 1, Permissions::Write).unwrap().next().unwrap().unwrap();
    guest.ram.balloon_out(LOW / PAGE);
    drop(memory.invalidate());
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

/// Three chunks: two of them are for chunks, and one is for pages alone.
fn tight() -> xen_foreignmem::Layout {
    layout().budget(3 * CHUNK)
}

#[test]
fn the_budget_holds_and_the_least_recently_used_chunk_goes() {
    let guest = Guest::new();
    let memory = guest.memory(tight());
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
    assert!(guest.foreign.peak_pages() * PAGE <= 2 * CHUNK + PAGE, "the probe is one page more");
}

#[test]
fn when_every_chunk_is_in_use_the_pages_of_an_access_are_mapped_alone_until_it_ends() {
    let guest = Guest::new();
    let memory = guest.memory(tight());
    let requests = memory.requests();
    let holder = requests.memory();
    holder.read_obj::<u8>(at(LOW)).unwrap();
    holder.read_obj::<u8>(at(LOW + CHUNK)).unwrap();
    for _ in 0..2 {
        let request = requests.memory();
        request.write_slice(&[5; PAGE_SIZE], at(LOW + 2 * CHUNK + PAGE / 2)).unwrap();
        assert_eq!(memory.stats().bytes, 2 * CHUNK + 2 * PAGE);
        drop(request);
        assert_eq!(memory.stats().bytes, 2 * CHUNK);
    }
    let stats = memory.stats();
    assert_eq!((stats.uncached, stats.evictions, stats.refusals), (2, 0, 0));
    // As far as there is room, and then no further.
    assert_eq!(lens(&*holder, at(LOW + 2 * CHUNK), CHUNK as usize), [CHUNK as usize]);
    let error = requests.memory().read_obj::<u8>(at(LOW + 3 * CHUNK)).unwrap_err().to_string();
    assert!(error.contains("all 49152 bytes that may be mapped"), "{error}");
    assert_eq!(memory.stats().refusals, 1);
    drop(holder);
    requests.memory().read_obj::<u8>(at(LOW + 3 * CHUNK)).unwrap();
    assert_eq!((memory.stats().uncached, memory.stats().evictions), (3, 1));
    assert!(guest.foreign.peak_pages() * PAGE <= 3 * CHUNK + PAGE);
}

#[test]
fn a_budget_that_no_chunk_fits_in_serves_by_pages() {
    let guest = Guest::new();
    let memory = guest.memory(layout().budget(CHUNK));
    let request = memory.requests().memory();
    request.write_slice(&[1; 3 * PAGE_SIZE], at(LOW)).unwrap();
    assert_eq!(memory.stats().bytes, 3 * PAGE);
    let mut slices = request.get_slices(at(LOW + CHUNK), 2 * PAGE_SIZE, Permissions::Read).unwrap();
    assert_eq!(slices.next().unwrap().unwrap().len(), PAGE_SIZE, "what there is room for");
    assert!(slices.next().unwrap().is_err());
}

#[test]
fn rings_are_mapped_beyond_the_budget() {
    let guest = Guest::new();
    let memory = guest.memory(layout().budget(PAGE));
    let request = memory.requests().memory();
    request.read_obj::<u8>(at(LOW)).unwrap();
    let ring = memory.rings().memory();
    ring.write_slice(&[1; 2 * PAGE_SIZE], at(LOW + CHUNK)).unwrap();
    assert_eq!(memory.stats().bytes, 3 * PAGE);
}

#[test]
fn chunks_are_given_up_when_the_kernel_has_no_memory_for_another() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    requests.memory().read_obj::<u8>(at(LOW)).unwrap();
    guest.foreign.map_faults().fail_nth(1, libc::ENOMEM);
    requests.memory().read_obj::<u8>(at(LOW + CHUNK)).unwrap();
    assert_eq!((memory.stats().chunks, memory.stats().evictions), (1, 1));
    guest.foreign.map_faults().fail_nth(1, libc::ENOMEM);
    guest.foreign.map_faults().fail_nth(2, libc::ENOMEM);
    assert!(requests.memory().read_obj::<u8>(at(LOW)).is_err(), "nothing is left to give up");
}

#[test]
fn a_ring_keeps_its_own_pages_mapped_and_nothing_beside_them() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let ring = memory.rings().memory();
    let place = at(LOW + PAGE + 100);
    assert_eq!(lens(&*ring, place, PAGE_SIZE), [PAGE_SIZE], "one piece, over two pages");
    memory.requests().memory().write_obj(7_u8, at(LOW)).unwrap();
    drop(memory.invalidate());
    assert_eq!((memory.stats().bytes, guest.foreign.live_pages()), (2 * PAGE, 2));
    ring.write_obj(9_u8, place).unwrap();
    let mut seen = [0];
    guest.ram.read(place.0, &mut seen).unwrap();
    assert_eq!(seen, [9]);
    drop(ring);
    assert_eq!(guest.foreign.live_mappings(), 0);
}

#[test]
fn a_part_of_a_ring_is_one_piece_though_its_first_page_is_mapped_already() {
    let guest = Guest::new();
    let ring = guest.memory(layout()).rings().memory();
    assert_eq!(lens(&*ring, at(LOW), 256), [256]);
    assert_eq!(lens(&*ring, at(LOW + 256), PAGE_SIZE), [PAGE_SIZE]);
}

#[test]
fn an_invalidate_unmaps_nothing_before_it_is_answered() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    requests.memory().write_slice(&[1; 2 * CHUNK as usize], at(LOW)).unwrap();
    guest.ram.balloon_out(LOW / PAGE);
    guest.ram.balloon_in(LOW / PAGE);
    guest.ram.write(LOW, &[5]).unwrap();
    let retired = memory.invalidate();
    assert_eq!((retired.bytes(), retired.is_empty()), (2 * CHUNK, false));
    assert_eq!(guest.foreign.live_pages() * PAGE, 2 * CHUNK, "the caller decides when");
    assert_eq!(requests.memory().read_obj::<u8>(at(LOW)).unwrap(), 5, "out of use at once");
    assert_eq!(memory.stats().bytes, 3 * CHUNK);
    drop(retired);
    assert_eq!(memory.stats().bytes, CHUNK);
    drop(memory.invalidate());
    assert!(memory.invalidate().is_empty());
}

#[test]
fn what_was_being_mapped_when_the_guest_changed_its_memory_is_not_cached() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let (other, ram, mut once) = (memory.clone(), guest.ram.clone(), true);
    guest.foreign.on_map(move |gfns| {
        // Whoever answers the guest doesn't wait for who maps: this would not return.
        if gfns.len() > 1 && std::mem::take(&mut once) {
            ram.balloon_out(LOW / PAGE);
            ram.balloon_in(LOW / PAGE);
            drop(other.invalidate());
        }
    });
    requests.memory().read_obj::<u8>(at(LOW)).unwrap();
    guest.ram.write(LOW, &[5]).unwrap();
    assert_eq!(requests.memory().read_obj::<u8>(at(LOW)).unwrap(), 5, "mapped anew");
    assert_eq!(memory.stats().chunks, 1);
}

#[test]
fn the_budget_counts_whole_pages_of_the_kernel() {
    let guest = Guest::with_kernel_page_size(4 * PAGE_SIZE);
    let memory = guest.memory(layout().budget(CHUNK + PAGE));
    let (first, second) = (memory.requests().memory(), memory.requests().memory());
    first.read_obj::<u8>(at(LOW)).unwrap();
    assert_eq!(memory.stats().bytes, 4 * PAGE, "a page of the guest's takes one of the kernel's");
    assert!(second.read_obj::<u8>(at(LOW + CHUNK)).is_err(), "another is not to be had");
    drop(first);
    second.read_slice(&mut [0; 3 * PAGE_SIZE], at(LOW)).unwrap();
    assert_eq!(memory.stats().bytes, 4 * PAGE);
}
