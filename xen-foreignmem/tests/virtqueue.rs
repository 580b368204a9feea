//! rust-vmm's virtio-queue over a guest's memory: rings, indirect tables and buffers in RAM, in
//! grants, and mixed.
#![cfg(not(miri))]

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddressSpace};
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable, FakeRam};
use xen_foreignmem::{DomainMemory, GRANT_BIT, Layout, PAGE_SIZE};

const PAGE: u64 = PAGE_SIZE as u64;
const BASE: u64 = 0x2_0000_0000;
const SIZE: u16 = 8;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Pages of a guest's memory, and how it tells them to the device.
struct Guest {
    ram: Arc<FakeRam>,
    grants: Arc<FakeGrantTable>,
    granted: Vec<u32>,
}

impl Guest {
    fn new() -> Self {
        let ram = Arc::new(FakeRam::new(9, &[(BASE, 32 * PAGE)]));
        let grants = Arc::new(FakeGrantTable::new(ram.clone()));
        Self { ram, grants, granted: Vec::new() }
    }

    /// The device's address of a page of RAM.
    fn page(&mut self, page: u64, granted: bool, readonly: bool) -> u64 {
        if !granted {
            return BASE + page * PAGE;
        }
        let gref = self.grants.grant(BASE / PAGE + page, readonly);
        self.granted.push(gref);
        GRANT_BIT | u64::from(gref) << 12
    }

    fn write(&self, page: u64, offset: u64, bytes: &[u8]) {
        self.ram.write(BASE + page * PAGE + offset, bytes).unwrap();
    }

    fn read<const N: usize>(&self, page: u64, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.ram.read(BASE + page * PAGE + offset, &mut bytes).unwrap();
        bytes
    }

    fn descriptor(&self, page: u64, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = Vec::new();
        bytes.extend(addr.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(page, index * 16, &bytes);
    }
}

const DESC: u64 = 0;
const AVAIL: u64 = 1;
const USED: u64 = 2;
const TABLE: u64 = 3;
const HEADER: u64 = 4;
const STATUS: u64 = 5;
/// Three pages of data, not consecutive in RAM.
const DATA: [u64; 3] = [10, 12, 6];

/// A request of three descriptors in an indirect table: header, data, status.
fn serve_one(rings_granted: bool, table_granted: bool, buffers_granted: bool, copy_max: usize) {
    let mut guest = Guest::new();
    let desc = guest.page(DESC, rings_granted, false);
    let avail = guest.page(AVAIL, rings_granted, false);
    let used = guest.page(USED, rings_granted, false);
    let table = guest.page(TABLE, table_granted, true);
    let header = guest.page(HEADER, buffers_granted, true);
    let status = guest.page(STATUS, buffers_granted, false);
    let data: Vec<_> = DATA.iter().map(|&page| guest.page(page, buffers_granted, false)).collect();
    // Grants of consecutive pages of a buffer have consecutive references; RAM is split by the guest.
    let pieces = if buffers_granted {
        vec![(data[0] + 8, 3 * PAGE as u32 - 8)]
    } else {
        vec![(data[0] + 8, PAGE as u32 - 8), (data[1], PAGE as u32), (data[2], PAGE as u32)]
    };
    guest.write(HEADER, 100, b"header..");
    guest.descriptor(TABLE, 0, header + 100, 8, NEXT, 1);
    for (n, &(addr, len)) in (1_u16..).zip(&pieces) {
        guest.descriptor(TABLE, n.into(), addr, len, NEXT | WRITE, n + 1);
    }
    let last = pieces.len() as u64 + 1;
    guest.descriptor(TABLE, last, status + 4095, 1, WRITE, 0);
    guest.descriptor(DESC, 5, table, 16 * (last as u32 + 1), INDIRECT, 0);
    guest.write(AVAIL, 4, &5_u16.to_le_bytes());
    guest.write(AVAIL, 2, &1_u16.to_le_bytes());

    let foreign = Arc::new(FakeForeignMemory::new(guest.ram.clone()));
    let layout = Layout::arm().chunk_size(4 * PAGE).unwrap().copy_max(copy_max);
    let memory = DomainMemory::new(Some(foreign.clone()), Some(guest.grants.clone()), layout);
    let rings = memory.rings().memory();
    let requests = memory.requests();

    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_size(SIZE);
    queue.try_set_desc_table_address(vm_memory::GuestAddress(desc)).unwrap();
    queue.try_set_avail_ring_address(vm_memory::GuestAddress(avail)).unwrap();
    queue.try_set_used_ring_address(vm_memory::GuestAddress(used)).unwrap();
    queue.set_event_idx(true);
    queue.set_ready(true);
    assert!(queue.is_valid(&*rings));

    let request = requests.memory();
    let chain = queue.iter(request.clone()).unwrap().next().unwrap();
    let head = chain.head_index();
    assert_eq!(head, 5);
    let mut written = 0;
    let descriptors: Vec<_> = chain.collect();
    assert_eq!(descriptors.len() as u64, last + 1);
    assert_eq!(&request.read_obj::<[u8; 8]>(descriptors[0].addr()).unwrap(), b"header..");
    for (n, descriptor) in descriptors.iter().enumerate().skip(1) {
        assert!(descriptor.is_write_only());
        let bytes = vec![n as u8; descriptor.len() as usize];
        request.write_slice(&bytes, descriptor.addr()).unwrap();
        written += descriptor.len();
    }
    drop(request);
    let is_ring = |gref: &u32| rings_granted && guest.granted[..3].contains(gref);
    for gref in guest.granted.iter().filter(|gref| !is_ring(gref)) {
        assert_eq!(guest.grants.end_access(*gref), Ok(()), "given back before it is used");
    }
    queue.add_used(&*rings, head, written).unwrap();

    assert_eq!(guest.read::<2>(USED, 2), 1_u16.to_le_bytes());
    assert_eq!(guest.read::<4>(USED, 4), 5_u32.to_le_bytes());
    assert_eq!(guest.read::<4>(USED, 8), (3 * PAGE as u32 - 7).to_le_bytes());
    assert_eq!(guest.read::<1>(STATUS, 4095), [last as u8]);
    assert_eq!(guest.read::<9>(DATA[0], 0), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(guest.read::<1>(DATA[2], 4095), [last as u8 - 1]);
    drop(rings);
    for gref in guest.granted {
        assert_eq!(guest.grants.end_access(gref), Ok(()));
    }
    drop((requests, memory));
    assert_eq!(foreign.live_mappings(), 0);
}

#[test]
fn a_chain_wherever_its_parts_are() {
    for case in 0..8 {
        for copy_max in [0, PAGE_SIZE, 1 << 20] {
            serve_one(case & 1 != 0, case & 2 != 0, case & 4 != 0, copy_max);
        }
    }
}
