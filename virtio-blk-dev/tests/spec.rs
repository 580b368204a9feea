//! One test for each rule of virtio 1.2 that a block device can break, named after its clause.
#![cfg(feature = "test-utils")]

mod common;

use std::sync::Arc;

use common::*;
use virtio_blk_dev::fake::FakeImage;
use virtio_blk_dev::{BlockConfig, BlockDevice, Serial};
use virtio_mmio_dev::{Effect, MmioTransport, Register, VirtioDevice};

fn writable(sectors: u64) -> (Guest, Arc<FakeImage>) {
    guest(sectors, &BlockConfig::default(), F_ALL)
}

fn answer(status: u8, len: u32) -> Answer {
    Answer { status, len, data: Vec::new() }
}

#[test]
fn spec_5_2_6_in_reads_sectors() {
    let (mut guest, _) = writable(16);
    let expected = [[3; 512], [4; 512]].concat();
    assert_eq!(guest.request(IN, 3, &[], 1024), Answer { status: OK, len: 1025, data: expected });
}

#[test]
fn spec_5_2_6_out_writes_sectors() {
    let (mut guest, image) = writable(16);
    assert_eq!(guest.request(OUT, 3, &[0xaa; 1024], 0), answer(OK, 1));
    let mut expected = contents(16);
    expected[3 * 512..5 * 512].fill(0xaa);
    assert_eq!(image.bytes(), expected);
}

#[test]
fn spec_5_2_6_get_id_is_twenty_bytes_without_a_terminator() {
    let config =
        BlockConfig { serial: Serial::new("0123456789abcdefghij").unwrap(), ..Default::default() };
    let (mut guest, _) = guest(1, &config, F_ALL);
    let expected = b"0123456789abcdefghij".to_vec();
    assert_eq!(guest.request(GET_ID, 0, &[], 20), Answer { status: OK, len: 21, data: expected });
}

#[test]
fn spec_5_2_6_get_id_respects_a_shorter_buffer_and_leaves_the_rest_of_a_longer_one() {
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
fn spec_5_2_6_2_unknown_types_are_unsupported_with_the_status_written() {
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
fn spec_5_2_6_2_requests_past_the_end_fail_and_change_nothing() {
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
fn spec_5_2_6_1_data_is_whole_sectors() {
    let (mut guest, image) = writable(4);
    for len in [1, 100, 511, 513, 1023] {
        let read = guest.request(IN, 0, &[], len);
        assert_eq!((read.status, read.len), (IOERR, 0), "{len} bytes");
        assert_eq!(guest.request(OUT, 0, &vec![7; len], 0), answer(IOERR, 1), "{len} bytes");
    }
    assert_eq!(image.bytes(), contents(4));
    assert_eq!(guest.request(IN, 4, &[], 0), answer(OK, 1), "no data is whole sectors, too");
}

#[test]
fn spec_5_2_6_2_writes_to_a_read_only_disk_fail_and_change_nothing() {
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
fn spec_5_2_6_2_flush_brings_writes_to_stable_storage() {
    let (mut guest, image) = writable(4);
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert_eq!(image.stable(), contents(4), "a negotiated cache may hold the write");
    assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1));
    assert_eq!(image.stable(), image.bytes());
    assert_eq!(image.flushes(), 1);
}

#[test]
fn spec_5_2_6_2_without_negotiated_flush_writes_are_stable_when_they_complete() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_VERSION_1);
    assert_ne!(guest.transport.device().features() & F_FLUSH, 0, "FLUSH is offered");
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert_eq!(image.stable()[512..1024], [7; 512]);
    image.inject(virtio_blk_dev::fake::Fault::Short(512));
    image.inject(virtio_blk_dev::fake::Fault::Errno(libc::EIO));
    assert_eq!(guest.request(OUT, 2, &[8; 512], 0), answer(IOERR, 1), "the flush failed");
}

#[test]
fn spec_2_7_4_framing_means_nothing() {
    let data = [[1; 512], [2; 512]].concat();
    let bytes = |range: std::ops::Range<u32>, buf: Buf| Buf {
        addr: buf.addr + u64::from(range.start),
        len: range.end - range.start,
        ..buf
    };

    // The header in pieces, and with data behind it.
    for cuts in [&[1, 7][..], &[15], &[16], &[3, 16, 17], &[100], &[16, 528], &[]] {
        let (mut guest, image) = writable(8);
        let mut stream = guest.header(OUT, 5);
        let mut whole = guest.get(stream.addr, 16);
        whole.extend(&data);
        stream = guest.out(&whole);
        let status = guest.room(1);
        let mut bufs = Vec::new();
        let mut from = 0;
        for &cut in cuts.iter().chain(&[16 + 1024]) {
            bufs.push(bytes(from..cut, stream));
            from = cut;
        }
        bufs.push(status);
        let answered = guest.serve(&bufs, 0, 0, status.addr);
        assert_eq!((answered.status, answered.len), (OK, 1), "cut at {cuts:?}");
        assert_eq!(image.bytes()[5 * 512..7 * 512], data, "cut at {cuts:?}");
    }

    // The data in pieces, and with the status behind it.
    for cuts in [&[1024][..], &[], &[1, 2, 512, 1000], &[1023], &[512, 1024]] {
        let (mut guest, _) = writable(8);
        let header = guest.header(IN, 1);
        let stream = guest.room(1025);
        let mut bufs = vec![header];
        let mut from = 0;
        for &cut in cuts.iter().chain(&[1025]) {
            bufs.push(bytes(from..cut, stream));
            from = cut;
        }
        let answered = guest.serve(&bufs, stream.addr, 1024, stream.addr + 1024);
        assert_eq!(answered, Answer { status: OK, len: 1025, data: data.clone() }, "{cuts:?}");
    }
}

#[test]
fn spec_2_7_5_3_requests_in_indirect_tables() {
    let (mut guest, _) = writable(8);
    let bufs = [guest.header(IN, 2), guest.room(512), guest.room(1)];
    let head = guest.add_indirect(&bufs);
    guest.kick();
    assert_eq!(guest.used(), [(head, 513)]);
    assert_eq!(guest.get(bufs[1].addr, 512), [2; 512]);
    assert_eq!(guest.get(bufs[2].addr, 1), [OK]);
}

#[test]
fn spec_2_7_8_2_length_counts_from_the_first_writable_byte_and_is_never_overstated() {
    let (mut guest, image) = writable(8);
    assert_eq!(guest.request(IN, 0, &[], 1024).len, 1025);
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).len, 1);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).len, 1);
    // Room before the status that a write or a flush leaves as it is.
    assert_eq!(
        guest.request(OUT, 0, &[7; 512], 64),
        Answer { status: OK, len: 0, data: vec![UNWRITTEN; 64] }
    );
    assert_eq!(guest.request(FLUSH, 0, &[], 64).len, 0);
    image.inject(virtio_blk_dev::fake::Fault::Errno(libc::EIO));
    let failed = guest.request(IN, 0, &[], 512);
    assert_eq!((failed.status, failed.len), (IOERR, 0));
}

#[test]
fn spec_2_7_10_notifications_are_asked_for_again_only_when_all_is_taken() {
    for features in [F_ALL, F_ALL & !F_EVENT_IDX] {
        let (mut guest, _) = guest(8, &BlockConfig::default(), features);
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        for _ in 0..80 {
            guest.add(&bufs);
        }
        let first = guest.worker.run();
        assert!(first.more, "a run is bounded");
        assert!(first.processed < 80);
        assert_eq!(guest.used().len() as u64, first.processed);
        assert_eq!(guest.kick().processed, 80 - first.processed);
        assert_eq!(guest.used().len() as u64, 80 - first.processed);
        assert_eq!(guest.kick().processed, 0);
    }
}

#[test]
fn spec_2_7_7_one_interrupt_for_a_batch() {
    for features in [F_ALL, F_ALL & !F_EVENT_IDX] {
        let (mut guest, _) = guest(8, &BlockConfig::default(), features);
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        let raised = || guest.raised.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(raised(), 0);
        for round in 1..4 {
            for _ in 0..10 {
                guest.add(&bufs);
            }
            guest.kick();
            assert_eq!(guest.raised.load(std::sync::atomic::Ordering::Relaxed), round);
            assert_eq!(guest.acknowledge(), 1);
            assert_eq!(guest.used().len(), 10);
        }
    }
}

#[test]
fn spec_2_1_2_a_descriptor_loop_asks_for_a_reset() {
    let (mut guest, _) = writable(8);
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.add_loop();
    guest.add(&bufs);
    guest.kick();
    assert!(guest.worker.is_broken());
    assert!(guest.needs_reset());
    assert_eq!(guest.used().len(), 1, "what came before is answered");
    assert_eq!(guest.worker.queue().in_flight(), 0);
}

#[test]
fn spec_5_2_4_the_configuration_is_read_in_bounds_and_written_nowhere() {
    let (mut guest, _) = writable(8);
    let before = guest.transport.device().config().to_vec();
    for offset in (0x100..0x240).chain([0x7fff_ffff, u64::MAX - 8]) {
        for width in [1, 2, 4, 8] {
            let mut data = [0xff; 8];
            guest.transport.read(offset, &mut data[..width]);
            let effect = guest.transport.write(offset, &[0xff; 8][..width]);
            assert!(matches!(effect, Effect::None | Effect::ConfigWritten));
        }
    }
    assert_eq!(guest.transport.device().config(), before);
    let mut capacity = [0; 8];
    guest.transport.read(0x100, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 8);
}

#[test]
fn spec_6_2_features_without_access_platform_are_refused_when_grants_are_a_must() {
    let config = BlockConfig { access_platform: true, ..Default::default() };
    let device = BlockDevice::new(4096, &config).unwrap();
    let mut transport = MmioTransport::new(device, || ()).unwrap();
    let mut negotiate = |high: u32| {
        for (register, value) in [
            (Register::Status, 0),
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, high),
            (Register::Status, 11),
        ] {
            if transport.write(register.offset(), &value.to_le_bytes()) == Effect::Reset {
                transport.reset_done();
            }
        }
        transport.status().bits() & 8 != 0
    };
    assert!(!negotiate(1), "VERSION_1 alone");
    assert!(!negotiate(2), "ACCESS_PLATFORM alone");
    assert!(negotiate(3));
}
