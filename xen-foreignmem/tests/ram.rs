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
    // Not where the other chunk is remembered.
    requests.memory().write_obj(1_u8, at(HIGH + CHUNK)).unwrap();
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
    let evictions = memory.stats().evictions;
    assert!(touch(3).is_err(), "all of the budget is in use");
    assert!(holder.read_obj::<u8>(at(LOW + 2 * CHUNK)).is_err());
    assert_eq!(memory.stats().evictions, evictions, "giving up what is in use gains nothing");
    drop(holder);
    touch(3).unwrap();
    assert!(guest.foreign.peak_pages() * PAGE <= 2 * CHUNK + PAGE, "the probe is one page more");
    let tiny = guest.memory(layout().budget(CHUNK - 1));
    assert!(tiny.requests().memory().read_obj::<u8>(at(LOW)).is_err());
}
