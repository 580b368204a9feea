//! What many requests copy from and to grants, in one call.

mod common;

use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use xen_foreignmem::fake::{Busy, FakeForeignMemory, FakeGrantTable};
use xen_foreignmem::{Guard, PAGE_SIZE, Requests};

use common::{Guest, LOW, PAGE, granted, layout};

type RequestGuard = Guard<FakeForeignMemory, FakeGrantTable>;

/// Each guard's range.
fn ranges<'a>(
    guards: &'a [RequestGuard],
    ranges: &'a [(GuestAddress, usize)],
) -> impl Iterator<Item = (&'a RequestGuard, GuestAddress, usize)> + Clone {
    guards.iter().zip(ranges).map(|(guard, &(addr, len))| (guard, addr, len))
}

type Memory = Requests<FakeForeignMemory, FakeGrantTable>;

/// Copies out what was written through the guards, and drops them. Which of them something is lost of.
fn release(requests: &Memory, guards: Vec<RequestGuard>) -> Vec<usize> {
    let mut guards: Vec<_> = guards.into_iter().enumerate().collect();
    let mut failed = Vec::new();
    requests.write_back(&mut guards, |(_, guard)| guard, |(index, _)| failed.push(*index));
    failed
}

#[test]
fn what_a_batch_of_requests_reads_is_copied_in_one_call() {
    let guest = Guest::new();
    let requests = guest.memory(layout().copy_max(3 * PAGE_SIZE)).requests();
    let header = guest.grant(0, true);
    let data = guest.grants.grant_all(&[LOW / PAGE + 1, LOW / PAGE + 5, LOW / PAGE + 2], true);
    guest.ram.write(LOW + 8, b"header").unwrap();
    guest.ram.write(LOW + 5 * PAGE, b"data").unwrap();
    let guards = [requests.memory(), requests.memory()];
    let wanted = [(granted(header, 8), 6), (granted(data, 100), 2 * PAGE_SIZE)];
    requests.fetch(ranges(&guards, &wanted));
    assert_eq!((guest.grants.copies(), guest.grants.segments()), (1, 1 + 3));
    assert_eq!(&guards[0].read_obj::<[u8; 6]>(granted(header, 8)).unwrap(), b"header");
    assert_eq!(&guards[1].read_obj::<[u8; 4]>(granted(data + 1, 0)).unwrap(), b"data");
    assert_eq!(guest.grants.copies(), 1, "it was there");
    assert_eq!(guest.grants.mapped_ever(), 0);
}

#[test]
fn a_batch_of_requests_is_given_back_by_one_call() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let grefs = [guest.grant(0, false), guest.grant(1, false), guest.grant(2, true)];
    let guards: Vec<_> = grefs.iter().map(|_| requests.memory()).collect();
    for (guard, gref) in guards.iter().zip(grefs) {
        guard.write_slice(&[gref as u8; PAGE_SIZE], granted(gref, 0)).unwrap();
    }
    let failed = release(&requests, guards);
    assert_eq!((guest.grants.copies(), guest.grants.segments()), (1, 3));
    assert_eq!(failed, [2], "the one that is granted read-only");
    for (page, gref) in grefs.iter().enumerate() {
        let mut seen = [0];
        guest.ram.read(LOW + page as u64 * PAGE + 4095, &mut seen).unwrap();
        assert_eq!(seen, if page < 2 { [*gref as u8] } else { [0] });
    }
    assert_eq!(memory.stats().copy_failures, 1);
}

#[test]
fn a_range_that_cannot_be_fetched_is_an_error_of_its_own_request_alone() {
    let guest = Guest::new();
    let requests = guest.memory(layout()).requests();
    let good = guest.grant(3, true);
    let guards = [requests.memory(), requests.memory(), requests.memory()];
    let nobody = granted(good + 1, 0);
    let wanted = [(nobody, 16), (granted(good, 0), 16), (nobody, PAGE_SIZE)];
    requests.fetch(ranges(&guards, &wanted));
    assert_eq!(guest.grants.copies(), 1);
    guards[1].read_obj::<[u8; 16]>(granted(good, 0)).unwrap();
    assert_eq!(guest.grants.copies(), 1);
    assert!(guards[0].read_obj::<[u8; 16]>(nobody).is_err());
    assert!(guards[2].read_slice(&mut [0; PAGE_SIZE], nobody).is_err());
}

#[test]
fn a_call_that_fails_harms_no_request_that_can_be_served_alone() {
    let guest = Guest::new();
    let memory = guest.memory(layout());
    let requests = memory.requests();
    let gref = guest.grant(3, false);
    guest.ram.write(LOW + 3 * PAGE, &[9]).unwrap();
    let guards = vec![requests.memory(), requests.memory()];
    guest.grants.copy_faults().fail_nth(0, libc::ENOMEM);
    requests.fetch(ranges(&guards, &[(granted(gref, 0), 16), (granted(gref, 0), 16)]));
    for guard in &guards {
        assert_eq!(guard.read_obj::<u8>(granted(gref, 0)).unwrap(), 9);
    }
    guards[1].write_obj(5_u8, granted(gref, 1)).unwrap();
    guest.grants.copy_faults().fail_nth(0, libc::EFAULT);
    assert!(release(&requests, guards).is_empty());
    let mut seen = [0; 2];
    guest.ram.read(LOW + 3 * PAGE, &mut seen).unwrap();
    assert_eq!((seen, memory.stats().copy_failures), ([9, 5], 0));
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn a_guard_that_has_a_clone_is_given_back_by_the_clone() {
    let guest = Guest::new();
    let requests = guest.memory(layout()).requests();
    let (copied, mapped) =
        (guest.grant(0, false), guest.grants.grant_all(&[LOW / PAGE + 1, LOW / PAGE + 2], false));
    let guard = requests.memory();
    guard.write_obj(1_u8, granted(copied, 0)).unwrap();
    guard.write_slice(&[2; 2 * PAGE_SIZE], granted(mapped, 0)).unwrap();
    let clone = guard.clone();
    assert!(release(&requests, vec![guard]).is_empty());
    assert_eq!((guest.grants.copies(), guest.grants.end_access(mapped)), (0, Err(Busy(mapped))));
    drop(clone);
    assert_eq!((guest.grants.copies(), guest.grants.end_access(mapped)), (1, Ok(())));
}

#[test]
#[cfg_attr(miri, ignore = "Miri maps no page twice")]
fn what_does_not_fit_into_the_pool_is_left_to_its_access_and_nothing_is_copied_twice() {
    let guest = Guest::new();
    let requests = guest.memory(layout().bounce_pages(1)).requests();
    let pages = guest.grants.grant_all(&[LOW / PAGE, LOW / PAGE + 1], true);
    let guards: Vec<_> = (0..4).map(|_| requests.memory()).collect();
    let other = guest.memory(layout()).requests();
    let wanted = [
        (granted(pages, 0), PAGE_SIZE),
        (granted(pages + 1, 0), PAGE_SIZE), // no room
        (granted(pages, 0), PAGE_SIZE + 1), // too long to be copied
        (GuestAddress(LOW), 16),            // RAM
    ];
    other.fetch(ranges(&guards, &wanted)); // guards of another space
    assert_eq!(guest.grants.copies(), 0);
    let twice = [(&guards[0], granted(pages, 16), 16), (&guards[0], granted(pages, 0), PAGE_SIZE)];
    requests.fetch(ranges(&guards, &wanted).chain(twice));
    assert_eq!((guest.grants.copies(), guest.grants.segments()), (1, 1));
    for (guard, &(addr, len)) in guards.iter().zip(&wanted) {
        guard.read_slice(&mut vec![0; len], addr).unwrap();
    }
    assert_eq!((guest.grants.copies(), guest.grants.mapped_ever()), (1, 2));
}

#[test]
fn what_one_request_fetches_no_other_sees() {
    let guest = Guest::new();
    let requests = guest.memory(layout().bounce_pages(1)).requests();
    let (one, other) = (guest.grant(0, true), guest.grant(1, false));
    guest.ram.write(LOW, &[0x55; PAGE_SIZE]).unwrap();
    let guards = vec![requests.memory()];
    requests.fetch(ranges(&guards, &[(granted(one, 0), PAGE_SIZE)]));
    assert!(release(&requests, guards).is_empty());
    let guard = requests.memory();
    // It offers its page for writing, and the device writes nothing.
    let slices = vm_memory::GuestMemory::get_slices(
        &*guard,
        granted(other, 0),
        PAGE_SIZE,
        vm_memory::Permissions::Write,
    );
    assert_eq!(slices.unwrap().count(), 1);
    drop(guard);
    let mut seen = [1; PAGE_SIZE];
    guest.ram.read(LOW + PAGE, &mut seen).unwrap();
    assert_eq!(seen, [0; PAGE_SIZE]);
}

#[test]
fn a_request_of_which_something_is_lost_can_tell_the_guest() {
    let guest = Guest::new();
    let requests = guest.memory(layout()).requests();
    let (data, status) = (guest.grant(0, true), guest.grant(1, false));
    let mut guards = [requests.memory(), requests.memory()];
    guards[0].write_slice(&[1; 512], granted(status, 512)).unwrap();
    guards[1].write_slice(&[1; 512], granted(data, 0)).unwrap();
    guards[1].write_obj(0_u8, granted(status, 0)).unwrap();
    let told = |guard: &mut RequestGuard| guard.write_obj(7_u8, granted(status, 0)).unwrap();
    requests.write_back(&mut guards, |guard| guard, told);
    drop(guards);
    let mut seen = [0; 1];
    guest.ram.read(LOW + PAGE, &mut seen).unwrap();
    assert_eq!(seen, [7]);
}
