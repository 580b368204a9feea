//! A device written for rust-vmm's virtio-queue, and a guest of the fake hypervisor that uses it.

mod common;
#[path = "../../virtio-mmio-dev/examples/rust_vmm_device.rs"]
#[expect(dead_code, reason = "its main is a driver of its own")]
mod rust_vmm_device;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rust_vmm_device::{Capitals, CapitalsQueue};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_dev::feature::{ACCESS_PLATFORM, VERSION_1};
use virtio_dev::{Queues as _, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, WINDOW_SIZE};
use xen_foreignmem::{DomainMemory, Layout};
use xen_ioreq::{DeviceModel as _, IoreqServer, RequestKind, fake::FakeDomain};
use xen_virtio_backend::fake::{FakeDriver, GuestKernel, Sharing, WRITE, Watchdog, Window, reg};

const BASE: u64 = 0x0200_0000;
const IRQ: u32 = 33;
const A_WHILE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Serves the device until it is told to stop. Its window answers when `ready` is called.
fn serve(domain: &FakeDomain, sharing: Sharing, ready: impl FnOnce(), stop: &AtomicBool) {
    let (model, foreign) = (domain.device_model(), domain.foreign_memory());
    let grants = sharing == Sharing::Grant;
    let memory = match sharing {
        Sharing::Foreign => DomainMemory::new(Some(Arc::clone(&foreign)), None, Layout::arm()),
        Sharing::Grant => DomainMemory::new(None, Some(domain.grant_table()), Layout::arm()),
    };
    let line = Arc::clone(&model);
    let transport =
        MmioTransport::builder(Capitals, move || line.set_irq_level(IRQ, true).unwrap());
    let mut transport = transport.access_platform(grants).build().unwrap();
    let mut queue = CapitalsQueue::new(memory.requests());
    let mut server = IoreqServer::create(model, foreign, domain.event_channel().unwrap()).unwrap();
    server.map_range(BASE..=BASE + (WINDOW_SIZE - 1)).unwrap();
    server.enable().unwrap();
    ready();
    while !stop.load(Ordering::Acquire) {
        let Some(request) = server.next_request().unwrap() else {
            poll(&mut [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)], Some(&A_WHILE))
                .unwrap();
            continue;
        };
        match request.kind() {
            RequestKind::Read { addr, size } => {
                let mut data = [0; 8];
                transport.read(addr - BASE, &mut data[..size.into()]);
                request.complete_read(u64::from_le_bytes(data));
            }
            RequestKind::Write { addr, size, data } => {
                let data = &data.to_le_bytes()[..size.into()];
                let outcome = transport.write(addr - BASE, data, &mut queue);
                request.complete();
                if let WriteOutcome::Notify(index) = outcome {
                    queue.notify(index);
                }
            }
            _ => request.complete(),
        }
    }
}

#[test]
fn a_device_written_for_virtio_queue_serves_guests_that_are_mapped_and_guests_that_grant() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let domain = FakeDomain::builder().domid(1).build();
        let kernel = GuestKernel::new(&domain, sharing);
        let stop = &AtomicBool::new(false);
        let (is_ready, ready) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| serve(&domain, sharing, || is_ready.send(()).unwrap(), stop));
            ready.recv().unwrap();
            let platform = if sharing == Sharing::Grant { ACCESS_PLATFORM } else { 0 };
            let window = Window::new(&domain, 0, BASE, IRQ);
            let mut driver = FakeDriver::start(window, &kernel, VERSION_1 | platform);
            for round in 0..20_u16 {
                let text = driver.filled(b"hello, xen");
                let room = driver.buffer(64);
                driver.chain(0, &[(text.device, 10, 0), (room.device, 64, WRITE)]);
                driver.offer(0);
                let used = driver.used();
                assert_eq!((used.id, used.len), (0, 10), "{sharing:?}, round {round}");
                assert_eq!(&driver.get::<10>(room.guest), b"HELLO, XEN");
                // Of a grant that is still mapped the guest's kernel would not let go.
                driver.release(text);
                driver.release(room);
            }
            assert!(domain.irq_count(IRQ) > 0);
            driver.window().write(reg::STATUS, 0);
            assert_eq!(driver.window().read(reg::STATUS), 0);
            assert_eq!(domain.grants().live_mappings(), 0, "{sharing:?}");
            stop.store(true, Ordering::Release);
        });
        assert_eq!(domain.foreign_memory().live_mappings(), 0, "{sharing:?}");
    }
}
