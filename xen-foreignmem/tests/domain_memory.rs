//! A guest's memory of either kind: nonsense, failures, several queues.
#![cfg(not(miri))]

mod common;

use std::sync::Barrier;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable};
use xen_foreignmem::{DomainMemory, GRANT_BIT, PAGE_SIZE, Requests};

use common::{CHUNK, Guest, LOW, Memory, PAGE, at, granted, layout, lens};

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
fn failures_to_map_and_unmap_are_errors_and_counts() {
    let guest = Guest::new();
    let memory = guest.memory(layout().copy_max(0));
    let requests = memory.requests();
    let gref = guest.grant(0, false);
    let request = requests.memory();
    guest.grants.map_faults().fail_nth(0, libc::ENOMEM);
    let error = request.read_obj::<u8>(granted(gref, 0)).unwrap_err();
    let GuestMemoryError::IOError(error) = error else { panic!("{error}") };
    assert!(
        error
            .to_string()
            .starts_with("domain 3: can't map grant 8: Cannot allocate memory (os error 12)"),
        "{error}"
    );
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
            drop(memory.invalidate());
            std::thread::yield_now();
        }
    });
    drop(memory.invalidate());
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
