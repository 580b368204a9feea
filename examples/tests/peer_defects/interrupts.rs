//! When the driver is interrupted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use virtio_dev::feature::{EVENT_IDX, VERSION_1};
use xen_virtio_backend::fake::{FakeDriver, Sharing, Watchdog, Window, reg, until};

use crate::{
    assert_serves,
    common::{
        block::{BlockRequests, IN, OK},
        one_disk::OneDisk,
    },
    start,
};

#[test]
fn interrupt_status_is_not_always_one() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 0);
    assert_serves(&mut driver);
    until("the interrupt", || it.interrupts() == 1);
    assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 1);
    driver.window().write(reg::INTERRUPT_ACK, 2);
    assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 1, "another bit's acknowledgement");
    driver.window().write(reg::INTERRUPT_ACK, 1);
    assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn no_interrupt_is_lost_between_worker_and_acknowledgement() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    // The second vCPU acknowledges whenever it can, as an interrupt handler on another core does, and
    // remembers that it was told. A driver that only looks at its ring then must miss nothing.
    let told = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicBool::new(false));
    let handler = thread::spawn({
        let (told, done) = (Arc::clone(&told), Arc::clone(&done));
        let window = Window::new(&it.domain, 1, it.disk.base(), it.disk.irq());
        move || {
            while !done.load(Ordering::SeqCst) {
                if window.ack_interrupt() & 1 != 0 {
                    told.store(true, Ordering::SeqCst);
                }
            }
        }
    });
    let data = driver.buffer(512);
    for sector in 0..300 {
        let (status, _) = driver.request(IN, sector, Some((data.device, 512)));
        assert_eq!(status, OK);
        until("being told of the completion", || told.swap(false, Ordering::SeqCst));
    }
    done.store(true, Ordering::SeqCst);
    handler.join().unwrap();
}

#[test]
fn event_idx_is_a_bit_not_a_number() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    // 29 as a mask would be bits 0, 2, 3 and 4: a driver that takes SEG_MAX (2) but not EVENT_IDX wants
    // an interrupt each time, whatever lies where the event would be.
    let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1 | 1 << 2);
    let data = driver.buffer(512);
    driver.put(driver.avail_ring().guest + 4 + 16 * 2, &100_u16.to_le_bytes());
    for nth in 1..=3 {
        assert_eq!(driver.request(IN, 0, Some((data.device, 512))).0, OK);
        until("the interrupt", || it.interrupts() == nth);
        driver.window().ack_interrupt();
    }
    // With EVENT_IDX the same field says: none before the 101st.
    let mut driver = FakeDriver::start(it.window(), &it.kernel, VERSION_1 | EVENT_IDX);
    driver.put(driver.avail_ring().guest + 4 + 16 * 2, &100_u16.to_le_bytes());
    let data = driver.buffer(512);
    for _ in 0..3 {
        assert_eq!(driver.request(IN, 0, Some((data.device, 512))).0, OK);
    }
    driver.window().write(reg::STATUS, 0);
    assert_eq!(it.interrupts(), 3);
}
