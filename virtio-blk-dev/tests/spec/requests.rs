//! Requests (§5.2.6).

use std::sync::Arc;

use virtio_blk_dev::fake::{FakeImage, Fault};
use virtio_blk_dev::{BlockConfig, Lifetime, RequestKind, Serial, Topology};
use virtio_dev::VirtioDevice;

use super::common::*;
use super::{answer, writable};

#[test]
fn s5_2_6_in_reads_sectors() {
    let (mut guest, _) = writable(16);
    let expected = [[3; 512], [4; 512]].concat();
    assert_eq!(guest.request(IN, 3, &[], 1024), Answer { status: OK, len: 1025, data: expected });
}

#[test]
fn s5_2_6_out_writes_sectors() {
    let (mut guest, image) = writable(16);
    assert_eq!(guest.request(OUT, 3, &[0xaa; 1024], 0), answer(OK, 1));
    let mut expected = contents(16);
    expected[3 * 512..5 * 512].fill(0xaa);
    assert_eq!(image.bytes(), expected);
}

#[test]
fn s5_2_6_get_id_is_twenty_bytes_without_a_terminator() {
    let config =
        BlockConfig { serial: Serial::new("0123456789abcdefghij").unwrap(), ..Default::default() };
    let (mut guest, _) = guest(1, &config, F_ALL);
    let expected = b"0123456789abcdefghij".to_vec();
    assert_eq!(guest.request(GET_ID, 0, &[], 20), Answer { status: OK, len: 21, data: expected });
}

#[test]
fn s5_2_6_get_id_respects_a_shorter_buffer_and_leaves_the_rest_of_a_longer_one() {
    let config = BlockConfig { serial: Serial::new("disk-1").unwrap(), ..Default::default() };
    let (mut guest, _) = guest(1, &config, F_ALL);
    let short = guest.request(GET_ID, 0, &[], 3);
    assert_eq!(short, Answer { status: OK, len: 4, data: b"dis".to_vec() });
    let long = guest.request(GET_ID, 0, &[], 24);
    assert_eq!((long.status, long.len), (OK, 20), "the status is no part of the first 20 bytes");
    assert_eq!(long.data[..8], *b"disk-1\0\0");
    assert_eq!(long.data[20..], [UNWRITTEN; 4]);
    assert_eq!(guest.request(GET_ID, 0, &[], 0), answer(OK, 1));
}

#[test]
fn s5_2_6_2_unknown_types_are_unsupported_with_the_status_written() {
    let (mut guest, image) = writable(4);
    for kind in [2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 16, 0x8000_0000, u32::MAX] {
        assert_eq!(guest.request(kind, 0, &[], 0), answer(UNSUPP, 1), "type {kind}");
        assert_eq!(guest.request(kind, 0, &[7; 512], 0), answer(UNSUPP, 1), "type {kind}");
        let read = guest.request(kind, 0, &[], 512);
        assert_eq!((read.status, read.len), (UNSUPP, 0), "type {kind}");
        assert_eq!(read.data, [UNWRITTEN; 512]);
    }
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn s5_2_6_2_requests_past_the_end_fail_and_change_nothing() {
    let (mut guest, image) = writable(4);
    for (sector, sectors) in [
        (4, 1),
        (3, 2),
        (0, 5),
        (1 << 32, 1),
        (u64::MAX / 512, 1),
        (u64::MAX / 512 + 1, 1),
        (u64::MAX, 1),
    ] {
        let len = sectors * 512;
        let read = guest.request(IN, sector, &[], len);
        assert_eq!((read.status, read.len), (IOERR, 0), "sector {sector}");
        assert_eq!(read.data, vec![UNWRITTEN; len]);
        assert_eq!(guest.request(OUT, sector, &vec![7; len], 0), answer(IOERR, 1));
    }
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn s5_2_6_1_data_is_whole_sectors() {
    let (mut guest, image) = writable(4);
    for len in [1, 100, 511, 513, 1023] {
        let read = guest.request(IN, 0, &[], len);
        assert_eq!((read.status, read.len), (IOERR, 0), "{len} bytes");
        assert_eq!(guest.request(OUT, 0, &vec![7; len], 0), answer(IOERR, 1), "{len} bytes");
    }
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn s5_2_6_a_read_or_write_without_data_in_its_direction_is_an_error_of_the_driver() {
    let (mut guest, image) = writable(4);
    assert_eq!(guest.request(IN, 0, &[], 0), answer(IOERR, 1), "nothing to read to");
    assert_eq!(guest.request(IN, 0, &[7; 512], 0), answer(IOERR, 1), "room marked as data");
    assert_eq!(guest.request(OUT, 0, &[], 0), answer(IOERR, 1), "nothing to write");
    let room = guest.request(OUT, 0, &[], 512);
    assert_eq!((room.status, room.len), (IOERR, 0), "data marked as room");
    assert_eq!(image.bytes(), contents(4));
    assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1), "a flush has none");
}

#[test]
fn s5_2_6_2_writes_to_a_read_only_disk_fail_and_change_nothing() {
    let config = BlockConfig { read_only: true, ..Default::default() };
    let (mut guest, image) = guest(4, &config, F_ALL);
    assert_ne!(guest.transport.device().features() & 1 << 5, 0, "RO is offered");
    for len in [0, 512, 1024, 4096] {
        assert_eq!(guest.request(OUT, 0, &vec![7; len], 0), answer(IOERR, 1), "{len} bytes");
    }
    assert_eq!(image.bytes(), contents(4));
    assert_eq!(guest.request(IN, 1, &[], 512).data, [1; 512]);
    assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1));
}

#[test]
fn s5_2_6_2_requests_of_zoned_devices_are_unsupported() {
    let (mut guest, image) = writable(4);
    for kind in [15, 16, 18, 20, 22, 24, 26] {
        assert_eq!(guest.request(kind, 0, &[], 0), answer(UNSUPP, 1), "type {kind}");
        let read = guest.request(kind, 0, &[], 128);
        assert_eq!((read.status, read.data), (UNSUPP, vec![UNWRITTEN; 128]), "type {kind}");
    }
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn s5_2_6_sectors_are_512_bytes_whatever_the_block_size() {
    let topology =
        Topology { logical_block_size: 4096, physical_block_size: 4096, ..Topology::default() };
    let image = FakeImage::new(contents(16), false).with_topology(topology);
    let config = BlockConfig::for_image(&image);
    let (mut guest, _) = guest_on(image, &config, F_ALL);
    assert_eq!(guest.config::<4>(20), 4096u32.to_le_bytes());
    assert_eq!(u64::from_le_bytes(guest.config(0)), 16);
    assert_eq!(guest.request(IN, 8, &[], 4096).data, contents(16)[4096..]);
}

#[test]
fn s5_2_6_a_flush_flushes_whatever_sector_and_data_it_has() {
    let (mut guest, image) = writable(4);
    for (nth, (sector, out)) in [(0, 0), (u64::MAX, 0), (99, 100)].into_iter().enumerate() {
        assert_eq!(guest.request(FLUSH, sector, &vec![7; out], 0), answer(OK, 1));
        assert_eq!(image.flushes(), nth as u64 + 1);
    }
    assert_eq!(image.bytes(), contents(4));
}

fn worn(lifetime: Lifetime) -> (Guest, Arc<FakeImage>) {
    let image = FakeImage::new(contents(4), false).with_lifetime(lifetime);
    let config = BlockConfig::for_image(&image);
    guest_on(image, &config, F_ALL | F_LIFETIME)
}

const WEAR: Lifetime =
    Lifetime { pre_eol_info: 2, device_lifetime_est_typ_a: 11, device_lifetime_est_typ_b: 4 };

#[test]
fn s5_2_6_lifetime_is_three_numbers() {
    let (mut guest, _) = worn(WEAR);
    let expected = vec![2, 0, 11, 0, 4, 0];
    assert_eq!(
        guest.request(GET_LIFETIME, 0, &[], 6),
        Answer { status: OK, len: 7, data: expected.clone() }
    );
    let short = guest.request(GET_LIFETIME, 0, &[], 4);
    assert_eq!(short, Answer { status: OK, len: 5, data: expected[..4].to_vec() });
    let long = guest.request(GET_LIFETIME, 0, &[], 8);
    assert_eq!((long.status, long.len), (OK, 6));
    assert_eq!(long.data, [&expected[..], &[UNWRITTEN; 2]].concat());
}

#[test]
fn s5_2_6_2_lifetime_is_offered_and_answered_only_where_it_is_real() {
    let (guest, _) = worn(WEAR);
    assert_ne!(guest.transport.device().features() & F_LIFETIME, 0);
    let (mut guest, _) = writable(4);
    assert_eq!(guest.transport.device().features() & F_LIFETIME, 0);
    let answered = guest.request(GET_LIFETIME, 0, &[], 6);
    assert_eq!((answered.status, answered.data), (UNSUPP, vec![UNWRITTEN; 6]));
}

#[test]
fn s5_2_6_2_lifetime_never_has_reserved_values() {
    for (told, a, b) in [(4, 12, 0), (u16::MAX, u16::MAX, u16::MAX), (4, 11, 256), (0, 12, 11)] {
        let (mut guest, _) = worn(Lifetime {
            pre_eol_info: told,
            device_lifetime_est_typ_a: a,
            device_lifetime_est_typ_b: b,
        });
        let data = guest.request(GET_LIFETIME, 0, &[], 6).data;
        let word = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
        assert_eq!(word(0), 0, "of {told}");
        for (at, value) in [(2, a), (4, b)] {
            assert_eq!(word(at), if value > 11 { 0 } else { value }, "of {value}");
        }
    }
}

#[test]
fn s5_2_6_a_lifetime_that_cannot_be_read_is_an_error() {
    let (mut guest, image) = worn(WEAR);
    image.inject(Fault::Errno(libc::EIO));
    let answered = guest.request(GET_LIFETIME, 0, &[], 6);
    assert_eq!((answered.status, answered.len), (IOERR, 0));
    assert_eq!(answered.data, [UNWRITTEN; 6]);
    assert_eq!(guest.worker.take_last_error().unwrap().kind, RequestKind::GetLifetime);
}
