//! A driver written by others, rcore-os' `virtio-drivers`, in a guest of the fake hypervisor: every
//! register access traps, every request crosses the whole stack. Once with memory that the backend maps
//! by itself, once with memory granted page by page.

mod common;

use std::{fs, os::unix::fs::FileExt};

use common::{
    host::sector_pattern,
    one_disk::{DISK_LEN, OneDisk},
    virtio_driver::{BlkDriver, probe},
};
use virtio_drivers::{
    Error,
    device::blk::{BlkReq, BlkResp, RespStatus},
    transport::InterruptStatus,
};
use xen_virtio_backend::fake::{Sharing, Watchdog, until};

const SHARINGS: [Sharing; 2] = [Sharing::Foreign, Sharing::Grant];

fn driver(it: &OneDisk) -> BlkDriver {
    probe(it.window(), &it.kernel).expect("the driver takes the device")
}

/// Nothing of the guest's is mapped by a grant, and its drivers have all their memory back.
fn assert_nothing_is_left(it: &OneDisk) {
    assert_eq!(it.domain.grants().live_grants(), 0, "grants mapped");
    assert_eq!(it.kernel.pages_in_use(), 0, "pages in use");
}

#[test]
fn the_driver_reads_what_the_image_holds_and_the_image_what_it_writes() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        assert_eq!(driver.capacity(), DISK_LEN / 512);
        assert!(!driver.readonly());

        let mut sector = [0; 512];
        for number in [0, 1, 77, DISK_LEN / 512 - 1] {
            driver.read_blocks(number as usize, &mut sector).unwrap();
            assert_eq!(sector, sector_pattern(number), "{sharing:?}, sector {number}");
        }
        // Buffers that are no multiple of a page, nor aligned to one.
        let long: Vec<u8> = (0..5 * 4096 + 512).map(|n| (n * 7 % 251) as u8).collect();
        driver.write_blocks(16, &long).unwrap();
        driver.flush().unwrap();
        assert_eq!(&it.contents()[16 * 512..16 * 512 + long.len()], long, "{sharing:?}");
        let mut back = vec![0; long.len()];
        driver.read_blocks(16, &mut back).unwrap();
        assert!(back == long, "{sharing:?}");

        drop(driver);
        assert_nothing_is_left(&it);
    }
}

#[test]
fn the_whole_disk_reads_back_as_written() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        let piece = 64 * 512;
        let data: Vec<u8> =
            (0..DISK_LEN as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (at, bytes) in data.chunks(piece).enumerate() {
            driver.write_blocks(at * 64, bytes).unwrap();
        }
        driver.flush().unwrap();
        assert!(it.contents() == data, "{sharing:?}");
        let mut back = vec![0; piece];
        for (at, bytes) in data.chunks(piece).enumerate() {
            driver.read_blocks(at * 64, &mut back).unwrap();
            assert!(back == bytes, "{sharing:?}, piece {at}");
        }
    }
}

#[test]
fn the_driver_reads_the_disks_identifier() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut id = [0; 20];
        let len = driver(&it).device_id(&mut id).unwrap();
        let id = std::str::from_utf8(&id[..len]).unwrap();
        assert!(id.contains("51712"), "{id:?} names the device");
    }
}

#[test]
fn several_requests_are_in_flight_and_each_gets_its_own_data() {
    // The driver's queue has 16 entries: one for each request if it may use a table of buffers, else three.
    for (sharing, number) in [(Sharing::Foreign, 16), (Sharing::Grant, 5)] {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        for round in 0..20 {
            let mut requests: Vec<_> = (0..number)
                .map(|_| (BlkReq::default(), [0_u8; 1024], BlkResp::default()))
                .collect();
            let mut tokens = std::collections::BTreeMap::new();
            for (nth, (request, data, response)) in requests.iter_mut().enumerate() {
                let sector = (round * number + nth) * 2;
                // SAFETY: `requests` stays where it is, untouched, until each is completed below.
                let token = unsafe { driver.read_blocks_nb(sector, request, data, response) };
                tokens.insert(token.unwrap(), nth);
            }
            assert_eq!(tokens.len(), number, "each has a chain of its own");
            while !tokens.is_empty() {
                let mut token = None;
                until("a completion", || {
                    token = driver.peek_used();
                    token.is_some()
                });
                let token = token.unwrap();
                let nth = tokens.remove(&token).expect("a request in flight");
                let (request, data, response) = &mut requests[nth];
                // SAFETY: the buffers that this token was given for.
                unsafe { driver.complete_read_blocks(token, request, data, response) }.unwrap();
                assert_eq!(response.status(), RespStatus::OK);
                let sector = (round * number + nth) as u64 * 2;
                assert_eq!(data[..512], sector_pattern(sector), "{sharing:?}");
                assert_eq!(data[512..], sector_pattern(sector + 1), "{sharing:?}");
            }
        }
        drop(driver);
        assert_nothing_is_left(&it);
    }
}

#[test]
fn no_data_grant_is_mapped_when_its_request_is_done() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Grant);
    let mut driver = driver(&it);
    let rings = it.domain.grants().live_grants();
    assert!(rings > 0, "the rings are granted, and mapped while the queue is ready");
    let mut data = vec![0; 16 * 512];
    for round in 0..100 {
        // `GuestKernel::unshare` fails where Linux's driver would give the device up.
        driver.read_blocks(round, &mut data).unwrap();
        driver.write_blocks(round, &data).unwrap();
        assert_eq!(it.domain.grants().live_grants(), rings, "only the rings");
    }
}

#[test]
fn a_request_in_granted_memory_is_copied_in_one_call_and_out_in_another() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Grant);
    let mut driver = driver(&it);
    let mut data = vec![3; 64 * 512];
    let copies = || it.domain.grants().copies();
    let before = copies();
    driver.write_blocks(0, &data).unwrap();
    assert_eq!(copies() - before, 2, "header and data; status");
    driver.read_blocks(0, &mut data).unwrap();
    assert_eq!(copies() - before, 4, "header; data and status");
    let rings = it.domain.grants().mapped_ever();
    driver.read_blocks(64, &mut data).unwrap();
    assert_eq!(it.domain.grants().mapped_ever(), rings, "nothing but the rings is mapped");
}

#[test]
fn a_disk_in_granted_memory_has_larger_queues_instead_of_tables_of_buffers() {
    const INDIRECT_DESC: u64 = 1 << 28;
    for (sharing, indirect, entries) in
        [(Sharing::Foreign, INDIRECT_DESC, 256), (Sharing::Grant, 0, 1024)]
    {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let window = it.window();
        assert_eq!(window.device_features() & INDIRECT_DESC, indirect, "{sharing:?}");
        assert_eq!(window.read(xen_virtio_backend::fake::reg::QUEUE_SIZE_MAX), entries);
        // A chain is no longer than the queue of a driver that takes the most entries.
        let seg_max = xen_virtio_backend::fake::reg::CONFIG + 12;
        assert_eq!(window.read(seg_max), 254, "{sharing:?}");
    }
}

#[test]
fn the_rings_are_unmapped_when_a_reset_is_answered() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Grant);
    let driver = driver(&it);
    assert!(it.domain.grants().live_grants() > 0);
    let window = it.window();
    window.write(xen_virtio_backend::fake::reg::STATUS, 0);
    assert_eq!(it.domain.grants().live_grants(), 0);
    drop(driver);
    assert_nothing_is_left(&it);
}

#[test]
fn the_rings_are_unmapped_when_the_queues_end_is_answered() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Grant);
    let _driver = driver(&it);
    let window = it.window();
    window.write(xen_virtio_backend::fake::reg::QUEUE_SEL, 0);
    window.write(xen_virtio_backend::fake::reg::QUEUE_READY, 0);
    assert_eq!(it.domain.grants().live_grants(), 0);
}

#[test]
fn a_device_that_was_reset_serves_the_next_driver() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        for round in 0..10 {
            let mut driver = driver(&it);
            let data = [round; 512];
            driver.write_blocks(5, &data).unwrap();
            let mut back = [0xff; 512];
            driver.read_blocks(5, &mut back).unwrap();
            assert_eq!(back, data);
            drop(driver);
            assert_nothing_is_left(&it);
        }
    }
}

#[test]
fn a_read_only_disk_says_so_refuses_writes_and_stays_as_it_was() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::configured(sharing, |disk| disk.with("mode", "r"));
        let before = it.contents();
        let mut driver = driver(&it);
        assert!(driver.readonly());
        assert_eq!(driver.write_blocks(3, &[0xee; 1024]), Err(Error::IoError));
        let mut sector = [0; 512];
        driver.read_blocks(3, &mut sector).unwrap();
        assert_eq!(sector, sector_pattern(3));
        assert!(it.contents() == before, "{sharing:?}");
    }
}

#[test]
fn an_interrupt_comes_with_each_completion_that_finds_the_last_one_acknowledged() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        let mut sector = [0; 512];
        assert!(driver.ack_interrupt().is_empty());
        for round in 1..=20 {
            driver.read_blocks(round, &mut sector).unwrap();
            until("the interrupt", || it.interrupts() == round as u64);
            assert!(driver.ack_interrupt() == InterruptStatus::QUEUE_INTERRUPT, "{sharing:?}");
            assert!(driver.ack_interrupt().is_empty(), "held until then only");
        }
    }
}

#[test]
fn completions_before_the_acknowledgement_are_one_interrupt() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        let mut sector = [0; 512];
        for round in 0..20 {
            driver.read_blocks(round, &mut sector).unwrap();
        }
        // The reset that comes with this waits for the queue, whose last interrupt is then raised or not.
        drop(driver);
        assert_eq!(it.interrupts(), 1, "{sharing:?}");
    }
}

#[test]
fn a_sector_that_the_host_cannot_read_is_an_error_and_the_next_is_not() {
    for sharing in SHARINGS {
        let _watchdog = Watchdog::start();
        let it = OneDisk::new(sharing);
        let mut driver = driver(&it);
        let mut sector = [0; 512];
        // Somebody cuts the image short under the backend.
        let image = fs::File::options().write(true).open(&it.image).unwrap();
        image.set_len(512 * 8).unwrap();
        assert_eq!(driver.read_blocks(100, &mut sector), Err(Error::IoError), "{sharing:?}");
        driver.read_blocks(7, &mut sector).unwrap();
        assert_eq!(sector, sector_pattern(7));
        image.set_len(DISK_LEN).unwrap();
        image.write_all_at(&[9; 512], 100 * 512).unwrap();
        driver.read_blocks(100, &mut sector).unwrap();
        assert_eq!(sector, [9; 512]);
    }
}
