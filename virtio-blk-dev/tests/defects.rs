//! What other implementations get wrong, and what malformed requests and failing hosts do.
#![cfg(feature = "test-utils")]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use virtio_blk_dev::fake::{FakeImage, Fault};
use virtio_blk_dev::{BlockConfig, BlockDevice, RequestKind, SyncEngine};
use virtio_dev::fake::NoQueues;
use virtio_dev::{Ignored, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register};

/// An address outside of the guest's memory.
const NOWHERE: u64 = MEMORY_END + 0x1000;

fn writable(sectors: u64) -> (Guest, Arc<FakeImage>) {
    guest(sectors, &BlockConfig::default(), F_ALL)
}

#[test]
fn a_write_past_the_end_does_not_grow_the_image() {
    let (mut guest, image) = writable(4);
    assert_eq!(guest.request(OUT, 3, &[7; 1024], 0).status, IOERR);
    assert_eq!(guest.request(OUT, 100, &[7; 512], 0).status, IOERR);
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn a_read_only_write_does_not_hang() {
    let config = BlockConfig { read_only: true, ..Default::default() };
    let (mut guest, image) = guest(4, &config, F_ALL);
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
    assert_eq!(image.bytes(), contents(4));
}

#[test]
fn host_errors_complete_the_request() {
    let (mut guest, image) = writable(4);
    for errno in [libc::EIO, libc::ENOSPC, libc::EFAULT, libc::EBADF, libc::EAGAIN] {
        image.inject(Fault::Errno(errno));
        assert_eq!(guest.request(IN, 2, &[], 512).status, IOERR);
        let error = guest.worker.take_last_error().unwrap();
        assert_eq!((error.kind, error.sector), (RequestKind::Read, 2));
        assert_eq!(error.source.raw_os_error(), Some(errno));

        image.inject(Fault::Errno(errno));
        assert_eq!(guest.request(OUT, 3, &[7; 512], 0).status, IOERR);
        let error = guest.worker.take_last_error().unwrap();
        assert_eq!((error.kind, error.sector), (RequestKind::Write, 3));
    }
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, IOERR);
    assert_eq!(guest.worker.take_last_error().unwrap().kind, RequestKind::Flush);
    assert!(guest.worker.take_last_error().is_none(), "each is told once");
    // What it cached may be gone, and the kernel tells that once (tests/durability.rs).
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, IOERR);
    assert_eq!(guest.request(IN, 2, &[], 512).status, OK, "and the disk goes on");
    let stats = guest.worker.stats();
    assert_eq!(stats.host_errors, 11);
    assert_eq!(
        (
            stats[RequestKind::Read].requests,
            stats[RequestKind::Read].errors,
            stats[RequestKind::Read].bytes
        ),
        (6, 5, 512)
    );
    assert_eq!(
        (
            stats[RequestKind::Write].requests,
            stats[RequestKind::Write].errors,
            stats[RequestKind::Write].bytes
        ),
        (5, 5, 0)
    );
    assert_eq!((stats[RequestKind::Flush].requests, stats[RequestKind::Flush].errors), (2, 2));
}

#[test]
fn an_error_after_a_short_write_is_an_error() {
    let (mut guest, image) = writable(4);
    image.inject(Fault::Short(100));
    image.inject(Fault::Errno(libc::ENOSPC));
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
}

#[test]
fn short_and_interrupted_transfers_go_on() {
    let (mut guest, image) = writable(8);
    let faults = [Fault::Short(1), Fault::Errno(libc::EINTR), Fault::Short(600), Fault::Short(3)];
    faults.iter().for_each(|&fault| image.inject(fault));
    let data = guest.request(IN, 2, &[], 2048).data;
    assert_eq!(data, contents(8)[1024..3072]);

    faults.iter().for_each(|&fault| image.inject(fault));
    let pattern: Vec<u8> = (0..2048).map(|n| (n % 251) as u8).collect();
    assert_eq!(guest.request(OUT, 3, &pattern, 0).status, OK);
    assert_eq!(image.bytes()[3 * 512..7 * 512], pattern);
}

#[test]
fn an_image_cut_short_behind_our_back_is_an_error_and_no_loop() {
    let (mut guest, image) = writable(8);
    image.inject(Fault::Short(512));
    image.inject(Fault::Short(0));
    assert_eq!(guest.request(IN, 0, &[], 1024).status, IOERR);
    assert_eq!(guest.worker.take_last_error().unwrap().source.kind(), ErrorKind::UnexpectedEof);
    image.inject(Fault::Short(0));
    assert_eq!(guest.request(OUT, 0, &[7; 512], 0).status, IOERR);
    assert_eq!(guest.worker.take_last_error().unwrap().source.kind(), ErrorKind::WriteZero);
}

#[test]
fn unknown_types_complete() {
    let (mut guest, _) = writable(4);
    assert_eq!(guest.request(0x1234, 0, &[], 0).status, UNSUPP);
    assert_eq!(guest.worker.stats()[RequestKind::Other].errors, 1);
}

#[test]
fn a_request_without_room_for_a_status_is_returned_and_not_carried_out() {
    let (mut guest, image) = writable(4);
    let bufs = [guest.header(OUT, 0), guest.out(&[7; 512])];
    let head = guest.add(&bufs);
    guest.finish();
    assert_eq!(guest.used(), [(head, 0)]);
    assert_eq!(image.bytes(), contents(4));
    assert_eq!(guest.worker.stats().without_status, 1);
    assert!(!guest.needs_reset());
}

#[test]
fn a_request_without_a_header_fails() {
    let (mut guest, _) = writable(4);
    let status = guest.room(1);
    let answer = guest.serve(&[status], 0, 0, status.addr);
    assert_eq!((answer.status, answer.len), (IOERR, 1));

    let header = guest.header(FLUSH, 0);
    let status = guest.room(1);
    let answer = guest.serve(&[Buf { len: 15, ..header }, status], 0, 0, status.addr);
    assert_eq!((answer.status, answer.len), (IOERR, 1));
}

#[test]
fn a_header_outside_of_memory_fails() {
    let (mut guest, _) = writable(4);
    for addr in [NOWHERE, MEMORY_END - 8, u64::MAX, u64::MAX - 15] {
        let status = guest.room(1);
        let header = Buf { addr, len: 16, write: false };
        let answer = guest.serve(&[header, status], 0, 0, status.addr);
        assert_eq!((answer.status, answer.len), (IOERR, 1), "at {addr:#x}");
    }
}

#[test]
fn data_outside_of_memory_fails_before_anything_is_moved() {
    let (mut guest, image) = writable(8);
    for addr in [NOWHERE, MEMORY_END - 511, u64::MAX - 511, u64::MAX] {
        let status = guest.room(1);
        let bufs = [
            guest.header(OUT, 0),
            guest.out(&[7; 512]),
            Buf { addr, len: 512, write: false },
            status,
        ];
        let answer = guest.serve(&bufs, 0, 0, status.addr);
        assert_eq!((answer.status, answer.len), (IOERR, 1), "at {addr:#x}");

        let good = guest.room(512);
        let status = guest.room(1);
        let bufs = [guest.header(IN, 0), good, Buf { addr, len: 512, write: true }, status];
        let answer = guest.serve(&bufs, good.addr, 512, status.addr);
        assert_eq!((answer.status, answer.len), (IOERR, 0), "at {addr:#x}");
        assert_eq!(answer.data, [UNWRITTEN; 512]);

        let bufs = [guest.header(GET_ID, 0), Buf { addr, len: 20, write: true }, status];
        let answer = guest.serve(&bufs, 0, 0, status.addr);
        assert_eq!(answer.len, if addr == MEMORY_END - 511 { 21 } else { 0 }, "at {addr:#x}");
    }
    assert_eq!(image.bytes(), contents(8));
    assert_eq!(guest.worker.stats().host_errors, 0, "the guest's mistake");
}

#[test]
fn a_status_outside_of_memory_returns_the_request_with_nothing_claimed() {
    let (mut guest, _) = writable(4);
    for addr in [NOWHERE, MEMORY_END, u64::MAX] {
        let bufs = [guest.header(IN, 0), guest.room(512), Buf { addr, len: 1, write: true }];
        let head = guest.add(&bufs);
        guest.finish();
        assert_eq!(guest.used(), [(head, 0)]);
    }
    assert_eq!(guest.worker.stats().without_status, 3);
}

#[test]
fn a_header_need_not_be_a_descriptor_of_sixteen_bytes() {
    let (mut guest, _) = writable(4);
    let header = guest.header(IN, 3);
    let (data, status) = (guest.room(512), guest.room(1));
    let pieces: Vec<Buf> =
        (0..16).map(|n| Buf { addr: header.addr + n, len: 1, ..header }).collect();
    let bufs = [&pieces[..], &[data, status]].concat();
    let answer = guest.serve(&bufs, data.addr, 512, status.addr);
    assert_eq!(answer, Answer { status: OK, len: 513, data: vec![3; 512] });
}

#[test]
#[cfg_attr(miri, ignore = "1536 buffers take minutes")]
fn more_buffers_than_a_system_call_takes_do_no_harm() {
    let config = BlockConfig { queue_size: 2048, ..Default::default() };
    let (mut guest, image) = guest(8, &config, F_ALL);
    let pattern: Vec<u8> = (0..2048u32).map(|n| (n % 253) as u8).collect();
    let (header, data, status) = (guest.header(OUT, 2), guest.out(&pattern[..1536]), guest.room(1));
    let pieces = (0..1536).map(|n| Buf { addr: data.addr + n, len: 1, ..data });
    let bufs: Vec<Buf> = std::iter::once(header).chain(pieces).chain([status]).collect();
    assert_eq!(guest.serve(&bufs, 0, 0, status.addr).status, OK);
    assert!(image.bytes()[1024..2560] == pattern[..1536]);
}

#[test]
fn requests_go_on_long_after_the_queue_has_been_through_once() {
    let config = BlockConfig { queue_size: 8, ..Default::default() };
    let (mut guest, _) = guest(4, &config, F_ALL);
    for round in 0..if cfg!(miri) { 6 } else { 100 } {
        assert_eq!(guest.request(IN, round % 4, &[], 512).status, OK);
        assert_eq!(guest.request(OUT, 3, &[3; 512], 0).status, OK);
        // One that fails before it gets to the engine.
        let status = guest.room(1);
        let data = Buf { addr: NOWHERE, len: 512, write: false };
        let bufs = [guest.header(OUT, 0), data, status];
        assert_eq!(guest.serve(&bufs, 0, 0, status.addr).status, IOERR);
    }
}

#[test]
fn event_idx_is_a_bit_and_not_its_number() {
    // All bits of the number 29 that there are, and not bit 29.
    let (mut guest, _) = guest(4, &BlockConfig::default(), F_FLUSH | F_VERSION_1 | 29);
    assert_eq!(guest.transport.features() & F_EVENT_IDX, 0);
    for round in 1..4 {
        // `used_event` stays where it is, and means nothing.
        let bufs = [guest.header(FLUSH, 0), guest.room(1)];
        guest.add(&bufs);
        guest.kick();
        assert_eq!(guest.raised.load(Ordering::Relaxed), round);
        guest.acknowledge();
    }
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let bits = [0, 3, 4, 7, 8, 13, 14, 15, 16, 17, 30, 33, 34, 35, 36, 37, 38, 39, 41, 63];
    for bit in bits {
        let device = BlockDevice::new(4096, &BlockConfig::default()).unwrap();
        let mut transport = MmioTransport::new(device, || ()).unwrap();
        let features: u64 = F_VERSION_1 | 1 << bit;
        for (register, value) in [
            (Register::Status, 1),
            (Register::Status, 3),
            (Register::DriverFeaturesSel, 0),
            (Register::DriverFeatures, features as u32),
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, (features >> 32) as u32),
            (Register::Status, 11),
        ] {
            let outcome = transport.write(register.offset(), &value.to_le_bytes(), &mut NoQueues);
            let refused = (register, value) == (Register::Status, 11);
            let ignored = WriteOutcome::Ignored(Ignored::FeaturesRefused);
            assert_eq!(outcome, if refused { ignored } else { WriteOutcome::Done });
        }
        assert_eq!(transport.status().bits(), 3, "FEATURES_OK with bit {bit}");
    }
}

#[test]
fn any_queue_may_be_selected_and_written() {
    let (mut guest, _) = writable(4);
    for index in [1, 2, 255, 256, 0xffff, 0x1_0000, u32::MAX] {
        for (register, value) in [
            (Register::QueueSel, index),
            (Register::QueueSize, 0xffff_ffff),
            (Register::QueueDescLow, 0xffff_ffff),
            (Register::QueueDriverHigh, 0xffff_ffff),
            (Register::QueueReady, 1),
            (Register::QueueReset, 1),
        ] {
            let (offset, data) = (register.offset(), value.to_le_bytes());
            let outcome = guest.transport.write(offset, &data, &mut NoQueues);
            let wanted = match register {
                Register::QueueSel => WriteOutcome::Done,
                Register::QueueReset => WriteOutcome::Ignored(Ignored::QueueReset),
                _ => WriteOutcome::Ignored(Ignored::NoQueue),
            };
            assert_eq!(outcome, wanted, "queue {index}");
        }
        assert_eq!(guest.register(Register::QueueSizeMax), 0, "queue {index}");
        assert_eq!(guest.register(Register::QueueReady), 0, "queue {index}");
    }
    assert_eq!(guest.request(IN, 1, &[], 512).data, [1; 512]);
}

#[test]
fn interrupt_status_says_what_happened_and_nothing_else() {
    let (mut guest, _) = writable(4);
    assert_eq!(guest.register(Register::InterruptStatus), 0);
    assert_eq!(guest.request(FLUSH, 0, &[], 0).status, OK);
    assert_eq!(guest.register(Register::InterruptStatus), 1);
    guest.transport.device_mut().set_capacity(1024).unwrap();
    guest.transport.config_changed();
    assert_eq!(guest.register(Register::InterruptStatus), 3, "both, until acknowledged");
    let offset = Register::InterruptAck.offset();
    let _ = guest.transport.write(offset, &1u32.to_le_bytes(), &mut NoQueues);
    assert_eq!(guest.register(Register::InterruptStatus), 2);
    assert_eq!(guest.acknowledge(), 2);
    assert_eq!(guest.register(Register::InterruptStatus), 0);
}

#[test]
fn a_reset_in_mid_work_leaves_a_disk_for_the_next_driver() {
    let (mut guest, image) = writable(4);
    assert_eq!(guest.request(IN, 1, &[], 512).status, OK);
    let bufs = [guest.header(OUT, 1), guest.out(&[7; 512]), guest.room(1)];
    guest.add(&bufs);
    // Which takes less than the one before: its features are replaced.
    guest.restart(F_VERSION_1);
    assert_eq!(guest.transport.features(), F_VERSION_1);
    let params = guest.transport.device().params();
    guest.replace_worker(SyncEngine::new(Arc::clone(&image)), &params);
    assert_eq!(guest.kick().processed, 0);
    assert_eq!(image.bytes(), contents(4), "what the driver gave up is not carried out");
    assert_eq!(guest.request(OUT, 2, &[8; 512], 0).status, OK);
    assert_eq!(image.stable()[1024..1536], [8; 512], "and it has no cache now");
}

#[test]
fn lists_of_any_length_and_content_are_answered() {
    let config =
        BlockConfig::for_image(&FakeImage::new(contents(4), false).with_commands(COMMANDS));
    let image = FakeImage::new(contents(4), false).with_commands(COMMANDS);
    let features = F_ALL | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
    let (mut guest, image) = guest_on(image, &config, features);
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        for len in [0, 1, 15, 17, 16 * 65, 4096, 1 << if cfg!(miri) { 13 } else { 20 }] {
            assert_eq!(guest.request(kind, 0, &vec![0xff; len], 0).status, IOERR, "{len} bytes");
        }
        assert_eq!(guest.request(kind, 0, &[0xff; 16], 0).status, UNSUPP);
    }
    assert_eq!(image.bytes(), contents(4));
    assert_eq!(guest.worker.stats().host_errors, 0);
}
