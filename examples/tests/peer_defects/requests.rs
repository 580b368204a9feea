//! Requests of any form.

use std::fs;

use xen_virtio_backend::fake::{
    DeviceConfig, INDIRECT, NEXT, Sharing, WRITE, Watchdog, descriptor,
};

use crate::{
    assert_serves,
    common::{
        block::{BlockRequests, FLUSH, IN, IOERR, OK, OUT, UNSUPP},
        host::sector_pattern,
        one_disk::{DISK_LEN, OneDisk},
    },
    start,
};

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
fn indirect_tables_work() {
    let _watchdog = Watchdog::start();
    let it = OneDisk::new(Sharing::Foreign);
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
