//! One 4 KiB request served in-process: the driver's stores, the queue, the worker, the image. The
//! image lies in memory where the machine has a tmpfs; `raw` is the bare system call on it.

use std::{fs::File, hint::black_box, os::unix::fs::FileExt, path::Path, sync::Arc};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use virtio_blk_dev::{BlockConfig, BlockDevice, Image, RawImage, SyncEngine, Worker};
use virtio_dev::fake::NoQueues;
use virtio_dev::{LiveQueue, WriteOutcome};
use virtio_mmio_dev::MmioTransport;
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use xen_foreignmem::{
    DomainMemory, Layout,
    fake::{FakeForeignMemory, FakeGrantTable, FakeRam},
};
use xen_virtio_benches::{Driver, Kind, QueueLayout, RAM, Request};

const IMAGE_LEN: u64 = 64 << 20;
const DATA_LEN: usize = 4096;
/// The driver's memory, in whole chunks of 2 MiB, as they are mapped.
const RAM_LEN: usize = LAYOUT.len().next_multiple_of(2 << 20);
const LAYOUT: QueueLayout = QueueLayout::new(32, DATA_LEN);

fn image() -> tempfile::NamedTempFile {
    let shm = Path::new("/dev/shm");
    let file = if shm.is_dir() {
        tempfile::NamedTempFile::new_in(shm)
    } else {
        tempfile::NamedTempFile::new()
    }
    .expect("a temporary file");
    let block = vec![0x5a; 1 << 20];
    for at in (0..IMAGE_LEN).step_by(block.len()) {
        file.as_file().write_all_at(&block, at).expect("room for the image");
    }
    file
}

/// Offsets in the image, spread and repeatable.
fn offsets() -> impl Iterator<Item = u64> {
    let blocks = IMAGE_LEN / DATA_LEN as u64;
    (0_u64..).map(move |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % blocks * DATA_LEN as u64)
}

fn requests(c: &mut Criterion) {
    let file = image();
    let mut group = c.benchmark_group("blk");
    for (name, kind) in [("read_4k", Kind::Read), ("write_4k", Kind::Write)] {
        let ram = Arc::new(FakeRam::new(1, &[(RAM, RAM_LEN as u64)]));
        let memory = DomainMemory::<_, FakeGrantTable>::new(
            Some(Arc::new(FakeForeignMemory::new(Arc::clone(&ram)))),
            None,
            Layout::default(),
        );
        let image: Arc<dyn Image> =
            Arc::new(RawImage::open(file.path(), false).expect("the image"));
        let device = BlockDevice::new(IMAGE_LEN, &BlockConfig::default()).expect("a device");
        let mut transport = MmioTransport::new(device, || {}).expect("a transport");
        let all = ram
            .get_slices(GuestAddress(RAM), RAM_LEN, Permissions::ReadWrite)
            .ok()
            .and_then(|mut slices| slices.next()?.ok())
            .expect("one slice of RAM");
        let mut driver = Driver::new(all, RAM, LAYOUT);
        for (register, value) in Driver::handshake(&LAYOUT, RAM) {
            let (offset, data) = (register.offset(), value.to_le_bytes());
            let outcome = transport.write(offset, &data, &mut NoQueues);
            assert_eq!(outcome, WriteOutcome::Done, "the device takes the driver's set-up");
        }
        let config = transport.queue(0).expect("a ready queue");
        let queue =
            LiveQueue::new(&config, &memory.rings(), memory.requests(), transport.interrupt(0))
                .expect("a live queue");
        let params = transport.device().params();
        let mut worker = Worker::new(queue, SyncEngine::new(image), &params);
        let mut offsets = offsets();
        for depth in [1_u16, 32] {
            group.throughput(Throughput::Elements(depth.into()));
            group.bench_function(format!("{name}/qd{depth}"), |b| {
                let mut done = Vec::with_capacity(depth.into());
                b.iter(|| {
                    for slot in 0..depth {
                        let sector = offsets.next().expect("endless") / 512;
                        driver.submit(slot, Request { kind, sector, len: DATA_LEN as u32 });
                    }
                    driver.publish();
                    done.clear();
                    while done.len() < usize::from(depth) {
                        worker.run();
                        driver.reap(&mut done).expect("requests succeed");
                        driver.enable_interrupts();
                    }
                });
            });
        }
    }
    group.throughput(Throughput::Elements(1));
    let raw = File::options().read(true).write(true).open(file.path()).expect("the image");
    let mut buffer = vec![0_u8; DATA_LEN];
    let mut offsets = offsets();
    group.bench_function("read_4k/raw", |b| {
        b.iter(|| {
            raw.read_exact_at(black_box(&mut buffer), offsets.next().expect("endless"))
                .expect("a read");
        });
    });
    group.bench_function("write_4k/raw", |b| {
        b.iter(|| {
            raw.write_all_at(black_box(&buffer), offsets.next().expect("endless"))
                .expect("a write");
        });
    });
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
