//! What other backends of this kind have got wrong where several parts meet, each tried here by a guest
//! through the whole stack. Those that lie within one part are tested there.

mod common;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use common::{
    block::{BlockRequests, FEATURE_FLUSH, FLUSH, IN, IOERR, OK, OUT, UNSUPP},
    host::{Host, sector_pattern},
    one_disk::{DISK_LEN, OneDisk},
    virtio_driver::probe,
};
use virtio_mmio_dev::feature::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use xen_virtio_backend::fake::{
    DeviceConfig, FakeDriver, GuestKernel, INDIRECT, NEXT, Sharing, WRITE, Watchdog, Window,
    descriptor, reg, until,
};

const FEATURES: u64 = VERSION_1 | FEATURE_FLUSH | INDIRECT_DESC;

fn features(sharing: Sharing) -> u64 {
    match sharing {
        Sharing::Foreign => FEATURES,
        Sharing::Grant => FEATURES | ACCESS_PLATFORM,
    }
}

fn start(it: &OneDisk) -> FakeDriver {
    FakeDriver::start(it.window(), &it.kernel, features(it.kernel.sharing()))
}

/// The device still does what it is for.
fn assert_serves(driver: &mut FakeDriver) {
    let data = driver.buffer(512);
    assert_eq!(driver.request(IN, 11, Some((data.device, 512))), (OK, 513));
    assert_eq!(driver.get::<512>(data.guest), sector_pattern(11));
    driver.release(data);
}

#[test]
fn config_access_beyond_the_struct_reaches_nothing() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    assert_eq!(window.read_sized(reg::CONFIG, 8), DISK_LEN / 512);
    // From here on is nothing that this device has (`max_secure_erase_sectors`, virtio 1.2 §5.2.4).
    let beyond = reg::CONFIG + 60;
    for offset in (reg::CONFIG + 36..0x200).chain([0x1fc, 0x1ff]) {
        for size in [1, 2, 4, 8] {
            if offset + u64::from(size) <= 0x200 {
                let before = window.read_sized(offset, size);
                window.write_sized(offset, size, u64::MAX);
                let after = window.read_sized(offset, size);
                assert_eq!(after, before, "{size} bytes at {offset:#x}");
                assert!(after == 0 || offset < beyond, "{size} bytes at {offset:#x}");
            }
        }
    }
    assert_serves(&mut start(&it));
}

#[test]
fn an_access_that_leaves_the_window_is_not_ours() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let vcpu = it.domain.vcpu(0);
    for addr in
        [it.disk.base() - 4, it.disk.base() - 2, it.disk.base() + 0x1fe, it.disk.base() + 0x200]
    {
        assert!(vcpu.read(addr, 4).is_err(), "{addr:#x}: Xen gives the guest an abort");
    }
    assert_serves(&mut start(&it));
}

#[test]
fn guest_chosen_indices_and_widths_hit_nothing() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let window = &driver.window();
    for index in [1, 2, 255, 0xffff, 0x1_0000, u32::MAX] {
        window.write(reg::QUEUE_NOTIFY, index);
        window.write(reg::QUEUE_SEL, index);
        assert_eq!(window.read(reg::QUEUE_SIZE_MAX), 0);
        window.write(reg::QUEUE_SIZE, 16);
        window.write(reg::QUEUE_READY, 1);
        window.write(reg::QUEUE_DESC, 0);
        assert_eq!(window.read(reg::QUEUE_READY), 0);
    }
    for offset in 0..reg::CONFIG {
        for size in [1, 2, 8] {
            assert_eq!(window.read_sized(offset, size), 0, "{size} bytes at {offset:#x}");
        }
    }
    window.write(reg::QUEUE_SEL, 0);
    assert_serves(&mut driver);
}

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
fn rings_and_buffers_work_in_every_bank() {
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        // The kernel's pages come from the banks in turn: three rings, then each buffer.
        let mut driver = start(&it);
        let banks: Vec<_> = it.kernel.ram().banks().collect();
        let bank = |addr: u64| banks.iter().position(|bank| bank.contains(&addr)).unwrap();
        assert!(banks.len() > 1 && banks[1].start >= 1 << 32, "a bank beyond 4 GiB");
        assert_ne!(bank(driver.desc_table().guest), bank(driver.avail_ring().guest));
        let mut seen = vec![false; banks.len()];
        for _ in 0..4 {
            let data = driver.buffer(512);
            seen[bank(data.guest)] = true;
            assert_eq!(driver.request(IN, 6, Some((data.device, 512))), (OK, 513), "{data:x?}");
            assert_eq!(driver.get::<512>(data.guest), sector_pattern(6));
        }
        assert!(seen.iter().all(|&seen| seen));
    }
}

#[test]
fn the_first_address_seen_decides_nothing() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let mut driver = start(&it);
        let buffer = driver.buffer(512);
        let gref = it.domain.grants().grant(buffer.guest / 4096, false);
        // The kind of address that this disk has no right to: an error each time, and no more.
        let wrong = match sharing {
            Sharing::Foreign => 1 << 63 | u64::from(gref) << 12,
            Sharing::Grant => buffer.guest,
        };
        for _ in 0..3 {
            let (status, _) = driver.request(IN, 0, Some((wrong, 512)));
            assert_eq!(status, IOERR, "{sharing:?}");
            assert_serves(&mut driver);
        }
        assert_eq!(driver.get::<512>(buffer.guest), [0; 512], "not reached");
        it.domain.grants().end_access(gref).expect("never mapped");
    }
}

#[test]
fn buffers_outside_the_guests_memory_are_an_error_of_that_request() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let mut driver = start(&it);
        for addr in [
            0,
            0x0200_0000,
            0x4000_0000 - 256,
            u64::MAX - 256,
            1 << 63,
            1 << 63 | 0xffff_ffff << 12,
        ] {
            for kind in [IN, OUT] {
                let (status, _) = driver.request(kind, 0, Some((addr, 8192)));
                assert_eq!(status, IOERR, "{sharing:?}: {kind} at {addr:#x}");
            }
        }
        assert_serves(&mut driver);
        assert_eq!(&it.contents()[..512], sector_pattern(0));
    }
}

#[test]
fn a_write_past_the_end_does_not_grow_the_image() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let data = driver.buffer(1024);
    let end = DISK_LEN / 512;
    for sector in
        [end - 1, end, end + 1, u64::MAX / 512, u64::MAX / 512 + 1, u64::MAX - 1, u64::MAX]
    {
        for kind in [IN, OUT] {
            let (status, _) = driver.request(kind, sector, Some((data.device, 1024)));
            assert_eq!(status, IOERR, "{kind} at {sector:#x}");
        }
    }
    assert_eq!(fs::metadata(&it.image).unwrap().len(), DISK_LEN);
    assert_eq!(&it.contents()[DISK_LEN as usize - 512..], sector_pattern(end - 1));
    assert_serves(&mut driver);
}

#[test]
fn a_read_only_write_is_answered_and_changes_nothing() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::configured(Sharing::Foreign, |disk| disk.with("mode", "r"));
    let mut driver = start(&it);
    let data = driver.filled(&[0xee; 512]);
    assert_eq!(driver.request(OUT, 11, Some((data.device, 512))).0, IOERR);
    assert_serves(&mut driver);
}

#[test]
fn unknown_types_and_host_errors_are_completed() {
    let _watchdog = Watchdog::start();
    let without_discards = |disk: DeviceConfig| disk.with("discard-enable", "0");
    let it = OneDisk::configured(Sharing::Foreign, without_discards);
    let mut driver = start(&it);
    for kind in [2, 3, 5, 7, 9, 11, 13, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(driver.request(kind, 0, None).0, UNSUPP, "type {kind}");
    }
    fs::File::options().write(true).open(&it.image).unwrap().set_len(4096 * 2).unwrap();
    let data = driver.buffer(512);
    assert_eq!(driver.request(IN, 1000, Some((data.device, 512))).0, IOERR);
    assert_serves(&mut driver);
}

#[test]
fn used_len_is_what_was_written() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let mut driver = start(&it);
        let data = driver.buffer(4096);
        assert_eq!(driver.request(IN, 0, Some((data.device, 4096))), (OK, 4097));
        assert_eq!(driver.request(OUT, 0, Some((data.device, 4096))), (OK, 1));
        assert_eq!(driver.request(FLUSH, 0, None), (OK, 1));
    }
}

#[test]
fn the_header_need_not_be_one_descriptor_of_16_bytes() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let mut driver = start(&it);
        // A write: header split in three, its end sharing a descriptor with the data's start.
        let head = driver.header(OUT, 8);
        let mut tail = driver.get::<16>(head.guest)[12..].to_vec();
        tail.extend([7; 512]);
        let tail = driver.filled(&tail);
        let status = driver.filled(&[0xff]);
        driver.chain(
            3,
            &[
                (head.device, 1, 0),
                (head.device + 1, 11, 0),
                (tail.device, 516, 0),
                (status.device, 1, WRITE),
            ],
        );
        driver.offer(3);
        assert_eq!(driver.used().id, 3);
        assert_eq!(driver.get(status.guest), [OK]);
        assert_eq!(it.contents()[8 * 512..9 * 512], [7; 512]);
        // A read: data and status in one descriptor.
        let head = driver.header(IN, 8);
        let both = driver.filled(&[0xff; 513]);
        driver.chain(9, &[(head.device, 16, 0), (both.device, 513, WRITE)]);
        driver.offer(9);
        assert_eq!(driver.used().len, 513);
        assert_eq!(driver.get::<512>(both.guest), [7; 512]);
        assert_eq!(driver.get(both.guest + 512), [OK]);
    }
}

#[test]
fn indirect_tables_work_wherever_they_are() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let mut driver = start(&it);
        for _ in 0..4 {
            let (head, data, status) =
                (driver.header(IN, 5), driver.buffer(512), driver.filled(&[0xff]));
            let table = [
                descriptor(head.device, 16, NEXT, 1),
                descriptor(data.device, 512, NEXT | WRITE, 2),
                descriptor(status.device, 1, WRITE, 0),
            ];
            let table = driver.filled(table.as_flattened());
            driver.chain(0, &[(table.device, 48, INDIRECT | WRITE)]);
            driver.offer(0);
            assert_eq!(driver.used().len, 513);
            assert_eq!(driver.get(status.guest), [OK]);
            assert_eq!(driver.get::<512>(data.guest), sector_pattern(5));
        }
    }
}

/// Breaks the ring by `break_it`; the device must say so, with an interrupt, do nothing more, and work
/// again after a reset. The disk beside it works all the time.
#[track_caller]
fn broken_ring_asks_for_a_reset(break_it: impl FnOnce(&mut FakeDriver)) {
    let _watchdog = Watchdog::start();
    let mut it = OneDisk::new(Sharing::Foreign);
    let beside = DeviceConfig::disk(1, 1, it.host.image("b.img", 64 * 512));
    it.host.serve(&beside);
    let mut neighbour = FakeDriver::start(it.host.window(&beside), &it.kernel, FEATURES);
    let mut driver = start(&it);
    break_it(&mut driver);
    driver.kick();
    driver.wait_needs_reset();
    until("the interrupt", || it.interrupts() > 0);
    assert_eq!(driver.window().ack_interrupt() & 2, 2, "a configuration change");
    assert!(!driver.is_answered());
    driver.kick();
    assert_serves(&mut neighbour);
    assert_serves(&mut start(&it));
}

#[test]
fn a_descriptor_loop_overflows_nothing() {
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.describe(0, page.device, 16, NEXT, 1);
        driver.describe(1, page.device, 16, NEXT, 0);
        driver.offer(0);
    });
}

#[test]
fn a_malformed_chain_is_not_dropped_silently() {
    // The next descriptor is none of the queue's.
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.describe(0, page.device, 16, NEXT, 16);
        driver.offer(0);
    });
    // A head that is none.
    broken_ring_asks_for_a_reset(|driver| driver.offer(16));
    // What may be written comes before what may be read.
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.chain(0, &[(page.device, 1, WRITE), (page.device, 16, 0)]);
        driver.offer(0);
    });
}

#[test]
fn an_available_index_that_jumps_is_not_followed() {
    broken_ring_asks_for_a_reset(|driver| driver.set_avail_idx(17));
}

#[test]
fn an_indirect_table_in_an_indirect_table_is_not_followed() {
    broken_ring_asks_for_a_reset(|driver| {
        let page = driver.buffer(4096);
        driver.put(page.guest, &descriptor(page.device, 16, INDIRECT, 0));
        driver.chain(0, &[(page.device, 16, INDIRECT)]);
        driver.offer(0);
    });
}

#[test]
fn rings_outside_the_guests_memory_ask_for_a_reset() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        for addr in [0_u64, 0x0200_0000, u64::MAX - 15, 1 << 63 | 0xfff_0000] {
            let mut driver = start(&it);
            let window = &driver.window();
            window.write(reg::QUEUE_READY, 0);
            assert_eq!(window.read(reg::QUEUE_READY), 0);
            window.write(reg::QUEUE_SIZE, 16);
            window.write(reg::QUEUE_DESC, addr as u32);
            window.write(reg::QUEUE_DESC + 4, (addr >> 32) as u32);
            window.write(reg::QUEUE_READY, 1);
            driver.offer(0);
            driver.wait_needs_reset();
            assert!(!driver.is_answered());
        }
        assert_serves(&mut start(&it));
    }
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    let _watchdog = Watchdog::start();
    for sharing in [Sharing::Foreign, Sharing::Grant] {
        let it = OneDisk::new(sharing);
        let window = it.window();
        let offered = window.device_features();
        assert_eq!(offered & ACCESS_PLATFORM != 0, sharing == Sharing::Grant);
        let unknown = (0..64).map(|bit| 1 << bit).find(|bit| offered & bit == 0).unwrap();
        for features in [offered | unknown, offered & !VERSION_1, 0] {
            window.write(reg::STATUS, 0);
            window.write(reg::STATUS, 3);
            window.set_driver_features(features);
            window.write(reg::STATUS, 11);
            assert_eq!(window.read(reg::STATUS), 3, "{features:#x}");
        }
        if sharing == Sharing::Grant {
            window.set_driver_features(offered & !ACCESS_PLATFORM);
            window.write(reg::STATUS, 11);
            assert_eq!(window.read(reg::STATUS), 3, "plain addresses mean nothing here");
        }
        assert_serves(&mut start(&it));
    }
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

#[test]
fn a_reset_is_done_when_it_is_answered() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    for _ in 0..20 {
        let mut driver = start(&it);
        // Requests in flight while the guest changes its mind.
        let page = driver.buffer(4096);
        let status = driver.buffer(1);
        for head in [0, 4, 8] {
            let header = driver.header(IN, 0);
            let chain =
                [(header.device, 16, 0), (page.device, 4096, WRITE), (status.device, 1, WRITE)];
            driver.chain(head, &chain);
            driver.offer(head);
        }
        driver.window().write(reg::STATUS, 0);
        assert_eq!(driver.window().read(reg::STATUS), 0);
        assert_eq!(driver.window().read(reg::INTERRUPT_STATUS), 0);
        assert_eq!(driver.window().read(reg::QUEUE_READY), 0);
        // The memory is the guest's again: nobody writes to it any more.
        let (before, used) = (it.interrupts(), driver.used_ring().guest);
        driver.put(page.guest, &[0x11; 4096]);
        driver.put(used, &[0x22; 4096]);
        thread::yield_now();
        assert_eq!(driver.get::<4096>(page.guest), [0x11; 4096]);
        assert_eq!(driver.get::<4096>(used), [0x22; 4096]);
        assert_eq!(it.interrupts(), before);
        for page in [page, status, driver.desc_table(), driver.avail_ring(), driver.used_ring()] {
            driver.release(page);
        }
    }
}

#[test]
fn a_kick_before_the_queue_is_live_is_not_lost() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let window = driver.window().clone();
    let (header, data, status) = (driver.header(IN, 2), driver.buffer(512), driver.filled(&[0xff]));
    driver
        .chain(0, &[(header.device, 16, 0), (data.device, 512, WRITE), (status.device, 1, WRITE)]);
    window.write(reg::QUEUE_READY, 0);
    driver.offer(0);
    assert!(!driver.is_answered(), "not while the queue is stopped");
    window.write(reg::QUEUE_READY, 1);
    assert_eq!(driver.used().len, 513);
}

#[test]
fn one_process_serves_several_disks_of_several_guests() {
    let _watchdog = Watchdog::start();
    let mut host = Host::new();
    let mut drivers = Vec::new();
    for domid in 1..=3 {
        let domain = host.create_guest(domid);
        let kernel = GuestKernel::new(&domain, Sharing::Foreign);
        for nth in 0..11 {
            let disk =
                DeviceConfig::disk(domid, nth, host.image(&format!("{domid}-{nth}.img"), 8192));
            host.serve(&disk);
            drivers.push((
                domain.clone(),
                FakeDriver::start(host.window(&disk), &kernel, FEATURES),
                disk,
            ));
        }
    }
    for (domain, driver, disk) in &mut drivers {
        assert_serves(driver);
        until("the disk's own interrupt", || domain.irq_count(disk.irq()) == 1);
    }
}

#[test]
fn vcpus_may_touch_a_device_at_the_same_time() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    let mut driver = start(&it);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let window = Window::new(&it.domain, 1, it.disk.base(), it.disk.irq());
            while !done.load(Ordering::SeqCst) {
                assert_eq!(window.read(reg::MAGIC), reg::MAGIC_VALUE);
                window.write(reg::QUEUE_NOTIFY, 0);
            }
        });
        for _ in 0..100 {
            assert_serves(&mut driver);
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_driver_that_dies_leaves_the_device_to_the_next() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
    // As after a guest's crash dump kernel starts: no reset, no good-bye.
    std::mem::forget(start(&it));
    let mut driver = probe(it.window(), &it.kernel).unwrap();
    let mut sector = [0; 512];
    driver.read_blocks(1, &mut sector).unwrap();
    assert_eq!(sector, sector_pattern(1));
}
