//! Granted memory: rings, and what requests map or copy.

mod common;

use vm_memory::{Bytes, GuestAddressSpace, GuestMemory, Permissions};
use xen_foreignmem::PAGE_SIZE;
use xen_foreignmem::fake::Busy;

use common::{Guest, HIGH, LOW, PAGE, granted, layout, lens};

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
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
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn rings_read_what_is_granted_read_only() {
    let guest = Guest::new();
    let guard = guest.memory(layout()).rings().memory();
    let gref = guest.grant(1, true);
    guest.ram.write(LOW + PAGE, &[6]).unwrap();
    assert_eq!(guard.read_obj::<u8>(granted(gref, 0)).unwrap(), 6);
    assert!(guard.write_obj(1_u8, granted(gref, 0)).is_err());
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
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
fn a_copied_range_over_two_pages_is_one_slice() {
    let guest = Guest::new();
    let gref = guest.grants.grant_all(&[LOW / PAGE, LOW / PAGE + 5], false);
    guest.ram.write(LOW + 4090, b"abcdef").unwrap();
    guest.ram.write(LOW + 5 * PAGE, b"ghi").unwrap();
    let memory = guest.memory(layout());
    let request = memory.requests().memory();
    assert_eq!(lens(&*request, granted(gref, 4090), 9), [9]);
    assert_eq!(&request.read_obj::<[u8; 9]>(granted(gref, 4090)).unwrap(), b"abcdefghi");
    request.write_slice(b"ABCDEFGHI", granted(gref, 4090)).unwrap();
    assert_eq!(&request.read_obj::<[u8; 3]>(granted(gref, 4095)).unwrap(), b"FGH");
    drop(request);
    let mut seen = [0; 3];
    guest.ram.read(LOW + 5 * PAGE, &mut seen).unwrap();
    assert_eq!(&seen, b"GHI");
}

#[test]
fn requests_on_two_threads_are_copied_side_by_side() {
    let guest = &Guest::new();
    let memory = guest.memory(layout().bounce_pages(2));
    let requests = &memory.requests();
    std::thread::scope(|scope| {
        for page in 0..2 {
            let gref = guest.grant(page, false);
            scope.spawn(move || {
                for round in 0..if cfg!(miri) { 6 } else { 125_u8 } {
                    let data = [round << page; PAGE_SIZE];
                    requests.memory().write_slice(&data, granted(gref, 0)).unwrap();
                    let mut seen = [0xee; PAGE_SIZE];
                    requests.memory().read_slice(&mut seen, granted(gref, 0)).unwrap();
                    assert!(seen == data, "page {page}, round {round}");
                }
            });
        }
    });
    assert_eq!((guest.grants.mapped_ever(), memory.stats().copy_failures), (0, 0));
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
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn when_the_pool_is_used_up_grants_are_mapped() {
    let guest = Guest::new();
    let memory = guest.memory(layout().bounce_pages(1));
    let grefs = [guest.grant(0, false), guest.grant(1, false)];
    let requests = memory.requests();
    let request = requests.memory();
    for gref in grefs {
        request.write_slice(&[7; 65], granted(gref, 0)).unwrap();
    }
    assert_eq!(guest.grants.live_mappings(), 1);
    drop(request);
    for page in 0..2 {
        let mut seen = [0];
        guest.ram.read(LOW + page * PAGE, &mut seen).unwrap();
        assert_eq!(seen, [7]);
    }
    requests.memory().write_slice(&[7; 65], granted(grefs[1], 0)).unwrap();
    assert_eq!(guest.grants.mapped_ever(), 1, "the page came back");
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
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
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
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
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
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
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn grants_over_several_pages_are_mapped_one_by_one_where_the_kernels_pages_are_larger() {
    let guest = Guest::with_kernel_page_size(16384);
    let memory = guest.memory(layout().copy_max(0));
    let first = guest.grants.grant_all(&[LOW / PAGE + 2, HIGH / PAGE, LOW / PAGE + 1], false);
    guest.ram.write(HIGH + 5, b"middle").unwrap();
    // A request maps for reading what it reads, and again what it writes.
    for (guard, mapped) in [(memory.requests().memory(), 6), (memory.rings().memory(), 3)] {
        let place = granted(first, 100);
        let len = 3 * PAGE_SIZE - 200;
        for _ in 0..2 {
            assert_eq!(lens(&*guard, place, len), [PAGE_SIZE - 100, PAGE_SIZE, PAGE_SIZE - 100]);
        }
        assert_eq!(&guard.read_obj::<[u8; 6]>(granted(first + 1, 5)).unwrap(), b"middle");
        guard.write_slice(&[7; 2 * PAGE_SIZE], granted(first, 2000)).unwrap();
        let mut seen = [0; 2];
        guest.ram.read(HIGH + 1999, &mut seen).unwrap();
        assert_eq!(seen, [7, 7]);
        assert_eq!(guest.grants.live_grants(), mapped, "and nothing twice");
        drop(guard);
        assert_eq!(guest.grants.live_mappings(), 0);
        guest.ram.write(HIGH, &[0; PAGE_SIZE]).unwrap();
        guest.ram.write(HIGH + 5, b"middle").unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn a_page_that_is_not_granted_leaves_none_of_its_range_mapped_where_pages_are_mapped_one_by_one() {
    let guest = Guest::with_kernel_page_size(65536);
    let request = guest.memory(layout().copy_max(0)).requests().memory();
    let first = guest.grants.grant_all(&[LOW / PAGE, LOW / PAGE + 1], false);
    assert!(request.read_slice(&mut [0; 3 * PAGE_SIZE], granted(first, 0)).is_err());
    assert_eq!(guest.grants.live_mappings(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn what_was_written_beside_a_page_that_is_mapped_later_is_copied_too() {
    let guest = Guest::new();
    let frames: Vec<_> = (0..3).map(|page| LOW / PAGE + page).collect();
    let gref = guest.grants.grant_all(&frames, false);
    let request = guest.memory(layout().copy_max(2 * PAGE_SIZE)).requests().memory();
    request.write_slice(&[1; 2 * PAGE_SIZE], granted(gref, 0)).unwrap();
    // Its first page was copied with the second, so that this range is mapped.
    request.write_slice(&[2; 100], granted(gref + 1, 4050)).unwrap();
    drop(request);
    let mut seen = [0; 3 * PAGE_SIZE];
    guest.ram.read(LOW, &mut seen).unwrap();
    assert!(seen[..PAGE_SIZE + 4050].iter().all(|&byte| byte == 1));
    assert!(seen[PAGE_SIZE + 4050..PAGE_SIZE + 4150].iter().all(|&byte| byte == 2));
    assert_eq!(guest.grants.mapped_ever(), 1);
}
