//! Translation of guest addresses to ours, with the guest's memory mapped already.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemory, Permissions};
use xen_foreignmem::{
    DomainMemory, Layout,
    fake::{FakeForeignMemory, FakeGrantTable, FakeRam},
};
use xen_virtio_benches::RAM;

/// Accesses go round these many chunks of 2 MiB.
const REGIONS: [u64; 3] = [1, 2, 8];
const CHUNK: u64 = 2 << 20;

fn translate(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory/translate");
    for regions in REGIONS {
        let ram = Arc::new(FakeRam::new(1, &[(RAM, regions * CHUNK)]));
        let memory = DomainMemory::<_, FakeGrantTable>::new(
            Some(Arc::new(FakeForeignMemory::new(ram))),
            None,
            Layout::default(),
        );
        let requests = memory.requests();
        let mut nth = 0_u64;
        group.bench_function(format!("regions_{regions}"), |b| {
            b.iter(|| {
                nth = nth.wrapping_add(1);
                let addr = GuestAddress(RAM + nth % regions * CHUNK + nth % 256 * 4096);
                let guard = requests.memory();
                let slices = guard.get_slices(black_box(addr), 4096, Permissions::Write);
                slices.expect("RAM").map(|slice| slice.expect("RAM").len()).sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, translate);
criterion_main!(benches);
