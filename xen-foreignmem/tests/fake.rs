//! The fakes are as strict as the kernel and Xen.
#![cfg(not(miri))]

use std::sync::Arc;

use vm_memory::{Bytes, VolatileSlice};
use xen_foreignmem::fake::{Busy, FakeForeignMemory, FakeGrantTable, FakePages, FakeRam};
use xen_foreignmem::{
    CopySegment, ForeignMemory, GrantTable, MapTarget, PAGE_SIZE, Prot, RESOURCE_IOREQ_SERVER,
};

const RW: Prot = Prot::READ.union(Prot::WRITE);
const BASE: u64 = 0x4000_0000;
const GFN: u64 = BASE / PAGE_SIZE as u64;
const HIGH: u64 = 0x2_0000_0000;

fn ram() -> Arc<FakeRam> {
    Arc::new(FakeRam::new(7, &[(BASE, 16 * PAGE_SIZE as u64), (HIGH, 4 * PAGE_SIZE as u64)]))
}

#[test]
fn a_mapping_aliases_the_guests_pages_in_the_order_asked_for() {
    let ram = ram();
    let foreign = FakeForeignMemory::new(ram.clone());
    let high = HIGH / PAGE_SIZE as u64;
    let mapping = foreign.map(RW, &[GFN + 3, high, GFN + 1, GFN + 2]).unwrap();
    assert_eq!((mapping.len(), mapping.prot()), (4 * PAGE_SIZE, RW));
    ram.write(HIGH + 5, b"guest").unwrap();
    let slice = mapping.as_volatile_slice();
    let mut seen = [0; 5];
    slice.read_slice(&mut seen, PAGE_SIZE + 5).unwrap();
    assert_eq!(&seen, b"guest");
    slice.write_slice(b"backend", 3 * PAGE_SIZE - 3).unwrap();
    let mut seen = [0; 7];
    ram.read(BASE + 2 * PAGE_SIZE as u64 - 3, &mut seen).unwrap();
    assert_eq!(&seen, b"backend");
    assert_eq!((foreign.live_mappings(), foreign.live_pages()), (1, 4));
    drop(mapping);
    assert_eq!((foreign.live_mappings(), foreign.live_pages()), (0, 0));
}

#[test]
fn the_first_bad_frame_is_named_and_nothing_stays_mapped() {
    let foreign = FakeForeignMemory::new(ram());
    let error = foreign.map(RW, &[GFN, 5, 6]).unwrap_err();
    assert_eq!((error.target, error.errno()), (MapTarget::Gfn(5), Some(libc::EINVAL)));
    assert_eq!(error.to_string(), "domain 7: can't map guest frame 0x5");
    foreign.fail_frame(GFN + 2, Some(libc::EFAULT));
    let error = foreign.map(RW, &[GFN, GFN + 1, GFN + 2]).unwrap_err();
    assert_eq!((error.target, error.errno()), (MapTarget::Gfn(GFN + 2), Some(libc::EFAULT)));
    assert_eq!(foreign.map(RW, &[]).unwrap_err().errno(), Some(libc::EINVAL));
    assert_eq!(foreign.live_mappings(), 0);
}

#[test]
fn holes_of_a_sparse_mapping_are_named() {
    let foreign = FakeForeignMemory::new(ram());
    let (mapping, holes) = foreign.map_sparse(Prot::READ, &[1, GFN, 2, GFN + 1]).unwrap();
    assert_eq!(holes, [(0, libc::EINVAL), (2, libc::EINVAL)]);
    assert_eq!(mapping.len(), 4 * PAGE_SIZE);
}

#[test]
fn paged_out_frames_come_or_are_given_up() {
    let ram = ram();
    let foreign = FakeForeignMemory::new(ram.clone());
    ram.page_out(GFN + 1, 3);
    foreign.map(RW, &[GFN, GFN + 1]).unwrap();
    ram.page_out(GFN + 1, u32::MAX);
    let error = foreign.map(RW, &[GFN, GFN + 1]).unwrap_err();
    assert_eq!((error.target, error.errno()), (MapTarget::Gfn(GFN + 1), Some(libc::ENOENT)));
}

#[test]
fn other_and_dead_domains_have_no_memory() {
    let ram = ram();
    let other = FakeForeignMemory::for_domid(ram.clone(), 8);
    assert_eq!(other.map(RW, &[GFN]).unwrap_err().errno(), Some(libc::ESRCH));
    let foreign = FakeForeignMemory::new(ram.clone());
    let grants = FakeGrantTable::new(ram.clone());
    let gref = grants.grant(GFN, false);
    ram.destroy();
    assert_eq!(foreign.map(RW, &[GFN]).unwrap_err().errno(), Some(libc::ESRCH));
    assert_eq!(foreign.map_resource(0, 1, 1, 1).unwrap_err().errno(), Some(libc::ESRCH));
    assert!(grants.map(&[gref], RW).is_err());
}

#[test]
fn resources_are_shared_with_who_registered_them() {
    let foreign = FakeForeignMemory::new(ram());
    let page = Arc::new(FakePages::new(1).unwrap());
    foreign.add_resource(RESOURCE_IOREQ_SERVER, 3, 1, page.clone());
    let mapping = foreign.map_resource(RESOURCE_IOREQ_SERVER, 3, 1, 1).unwrap();
    mapping.as_volatile_slice().write_obj(0x1234_5678_u32, 8).unwrap();
    assert_eq!(page.view().read_obj::<u32>(8).unwrap(), 0x1234_5678);
    for (id, frames) in [(3, 0), (3, 2)] {
        let error = foreign.map_resource(RESOURCE_IOREQ_SERVER, id, 1, frames).unwrap_err();
        assert_eq!(error.errno(), Some(libc::EINVAL));
    }
    let error = foreign.map_resource(RESOURCE_IOREQ_SERVER, 4, 1, 1).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
}

#[test]
fn a_ballooned_frame_comes_back_as_another_page() {
    let ram = ram();
    let foreign = FakeForeignMemory::new(ram.clone());
    ram.write(BASE, &[1]).unwrap();
    let old = foreign.map(RW, &[GFN]).unwrap();
    ram.balloon_out(GFN);
    assert!(foreign.map(RW, &[GFN]).is_err());
    assert!(ram.write(BASE, &[2]).is_err());
    ram.balloon_in(GFN);
    let new = foreign.map(RW, &[GFN]).unwrap();
    ram.write(BASE, &[3]).unwrap();
    assert_eq!(old.as_volatile_slice().read_obj::<u8>(0).unwrap(), 1);
    assert_eq!(new.as_volatile_slice().read_obj::<u8>(0).unwrap(), 3);
}

#[test]
fn a_grant_is_busy_as_long_as_it_is_mapped() {
    let grants = FakeGrantTable::new(ram());
    let first = grants.grant_all(&[GFN + 9, GFN + 2], false);
    let mapping = grants.map(&[first, first + 1], RW).unwrap();
    grants.ram().write(BASE + 2 * PAGE_SIZE as u64, b"x").unwrap();
    assert_eq!(mapping.as_volatile_slice().read_obj::<u8>(PAGE_SIZE).unwrap(), b'x');
    assert_eq!(grants.end_access(first + 1), Err(Busy(first + 1)));
    assert_eq!((grants.live_mappings(), grants.live_grants()), (1, 2));
    drop(mapping);
    assert_eq!(grants.end_access(first + 1), Ok(()));
    assert!(grants.map(&[first + 1], RW).is_err(), "it is no longer granted");
    assert_eq!((grants.live_mappings(), grants.mapped_ever()), (0, 1));
}

#[test]
fn a_read_only_grant_is_mapped_and_copied_for_reading_only() {
    let grants = FakeGrantTable::new(ram());
    let gref = grants.grant(GFN, true);
    assert_eq!(grants.map(&[gref], RW).unwrap_err().errno(), Some(libc::EINVAL));
    grants.map(&[gref], Prot::READ).unwrap();
    let mut bytes = [0; 4];
    let local = VolatileSlice::from(&mut bytes[..]);
    let mut segments = [
        CopySegment::to_guest(gref, 0, local),
        CopySegment::from_guest(gref, 4092, local),
        CopySegment::from_guest(999, 0, local),
    ];
    grants.copy(&mut segments).unwrap();
    assert_eq!(segments.map(|s| s.status()), [-1, 0, -3]);
}

#[test]
fn a_copy_stays_in_its_page() {
    let grants = FakeGrantTable::new(ram());
    let gref = grants.grant(GFN, false);
    let mut bytes = [7; 8];
    let local = VolatileSlice::from(&mut bytes[..]);
    let mut segments =
        [CopySegment::to_guest(gref, 0, local), CopySegment::to_guest(gref, 4089, local)];
    assert_eq!(grants.copy(&mut segments).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    let mut segments = [CopySegment::to_guest(gref, 4088, local)];
    grants.copy(&mut segments).unwrap();
    assert!(segments[0].is_done());
    let mut seen = [0; 9];
    grants.ram().read(BASE + 4087, &mut seen).unwrap();
    assert_eq!(seen, [0, 7, 7, 7, 7, 7, 7, 7, 7]);
}

#[test]
fn planned_failures_happen_once_and_in_their_turn() {
    let ram = ram();
    let foreign = FakeForeignMemory::new(ram.clone());
    foreign.map_faults().fail_nth(1, libc::ENOMEM);
    foreign.map(RW, &[GFN]).unwrap();
    assert_eq!(foreign.map(RW, &[GFN]).unwrap_err().errno(), Some(libc::ENOMEM));
    foreign.map(RW, &[GFN]).unwrap();

    let grants = FakeGrantTable::new(ram);
    let gref = grants.grant(GFN, false);
    grants.unmap_faults().fail_nth(0, libc::EINVAL);
    drop(grants.map(&[gref], RW).unwrap());
    assert_eq!(grants.unmap_failures(), 1);
    assert_eq!(grants.end_access(gref), Err(Busy(gref)), "the kernel still has it mapped");
}

#[test]
fn a_kernel_with_large_pages_maps_one_grant_and_one_frame_of_a_resource_at_a_time() {
    for kernel_page_size in [16384, 65536] {
        let grants = FakeGrantTable::new(ram()).with_kernel_page_size(kernel_page_size);
        let first = grants.grant_all(&[GFN, GFN + 1], false);
        assert_eq!(grants.grants_per_mapping(), 1);
        let refused = grants.map(&[first, first + 1], RW).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::EINVAL));
        assert_eq!(grants.map(&[first], RW).unwrap().len(), PAGE_SIZE);

        let foreign = FakeForeignMemory::new(ram()).with_kernel_page_size(kernel_page_size);
        assert_eq!(foreign.kernel_page_size(), kernel_page_size);
        foreign.add_resource(RESOURCE_IOREQ_SERVER, 3, 0, Arc::new(FakePages::new(2).unwrap()));
        foreign.map_resource(RESOURCE_IOREQ_SERVER, 3, 0, 1).unwrap();
        let refused =
            foreign.map_resource(RESOURCE_IOREQ_SERVER, 3, 0, 2).unwrap_err().source.to_string();
        assert!(refused.contains(&format!("pages of {kernel_page_size} bytes")), "{refused}");
        assert_eq!(foreign.map(RW, &[GFN, GFN + 1, GFN + 2]).unwrap().len(), 3 * PAGE_SIZE);
    }
}
