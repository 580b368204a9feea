//! Where rings and buffers are.

use xen_virtio_backend::fake::{Sharing, Watchdog, reg};

use crate::{
    assert_serves,
    common::{
        block::{BlockRequests, IN, IOERR, OK, OUT},
        host::sector_pattern,
        one_disk::OneDisk,
    },
    start,
};

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
