//! What a guest's INVALIDATE does to what is mapped of it.

mod common;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use common::{host::Host, virtio_driver::probe};
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing};

/// How long an answer may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn an_invalidate_is_answered_before_anything_is_unmapped_and_then_all_but_the_rings_is() {
    let mut host = Host::new();
    let domain = host.create_guest(1);
    let kernel = GuestKernel::new(&domain, Sharing::Foreign);
    let disk = DeviceConfig::disk(1, 0, host.image("disk.img", 1 << 16));
    host.serve(&disk);
    let mut driver = probe(host.window(&disk), &kernel).unwrap();
    driver.write_blocks(0, &[1; 4096]).unwrap();
    let foreign = domain.foreign_memory();
    let mapped = foreign.live_pages();
    assert!(mapped > 512, "a chunk is cached: {mapped} pages");

    // Nothing is unmapped by whoever answers, or this would be its end.
    let answered = Arc::new((Mutex::new(false), Condvar::new()));
    let early = Arc::new(AtomicU32::new(0));
    let (waits, count) = (Arc::clone(&answered), Arc::clone(&early));
    foreign.on_unmap(move |_| {
        let (flag, changed) = &*waits;
        let (flag, _) =
            changed.wait_timeout_while(flag.lock().unwrap(), PATIENCE, |flag| !*flag).unwrap();
        count.fetch_add(u32::from(!*flag), Ordering::SeqCst);
    });
    domain.vcpu(0).invalidate().unwrap();
    assert_eq!(foreign.live_pages(), mapped, "answered, and nothing unmapped yet");
    *answered.0.lock().unwrap() = true;
    answered.1.notify_all();

    let start = Instant::now();
    while foreign.live_pages() > 16 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(foreign.live_pages() <= 16, "more than rings stays: {} pages", foreign.live_pages());
    assert_eq!(early.load(Ordering::SeqCst), 0);
    let mut block = [0; 512];
    driver.read_blocks(0, &mut block).unwrap();
    assert_eq!(block, [1; 512], "it goes on");
}
