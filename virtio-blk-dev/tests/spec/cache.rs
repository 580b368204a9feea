//! When a write is stable (§5.2.6.2), and whose say that is.

use std::sync::Arc;

use virtio_blk_dev::fake::{FakeImage, Fault};
use virtio_blk_dev::{BlockConfig, BlockDevice, Image, RequestKind, SyncEngine};
use virtio_dev::fake::NoQueues;
use virtio_dev::{Ignored, VirtioDevice, WriteOutcome};
use virtio_mmio_dev::{MmioTransport, Register};

use super::common::*;
use super::{Hooked, answer, writable};

#[test]
fn s5_2_6_2_flush_brings_writes_to_stable_storage() {
    let (mut guest, image) = writable(4);
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert_eq!(image.stable(), contents(4), "a negotiated cache may hold the write");
    assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1));
    assert_eq!(image.stable(), image.bytes());
    assert_eq!(image.flushes(), 1);
}

#[test]
fn s5_2_6_2_without_negotiated_flush_writes_are_stable_when_they_complete() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_VERSION_1);
    assert_ne!(guest.transport.device().features() & F_FLUSH, 0, "FLUSH is offered");
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert_eq!(image.stable()[512..1024], [7; 512]);
    image.inject(Fault::Short(512));
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!(guest.request(OUT, 2, &[8; 512], 0), answer(IOERR, 1), "the flush failed");
}

/// Both negotiated: the driver may switch.
const F_SWITCH: u64 = F_ALL | F_CONFIG_WCE;

#[test]
fn s5_2_5_2_flush_is_offered_wherever_the_cache_can_be_switched() {
    for read_only in [false, true] {
        for write_back in [false, true] {
            let config = BlockConfig { read_only, write_back, ..BlockConfig::default() };
            let features = BlockDevice::new(4096, &config).unwrap().features();
            assert_eq!(features & (F_CONFIG_WCE | F_FLUSH), F_CONFIG_WCE | F_FLUSH);
        }
    }
}

#[test]
fn s5_2_5_2_writeback_begins_with_0_for_a_driver_that_cannot_flush() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_SWITCH & !F_FLUSH);
    assert_eq!(guest.config::<1>(32), [0]);
    assert!(!guest.transport.device().is_write_back());
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert!(image.stable() == image.bytes());
}

#[test]
fn s5_2_5_writeback_tells_the_mode_after_negotiation() {
    for write_back in [false, true] {
        let config = BlockConfig { write_back, ..BlockConfig::default() };
        let (mut guest, image) = guest(4, &config, F_SWITCH);
        assert_eq!(guest.config::<1>(32), [u8::from(write_back)]);
        assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
        assert_eq!(image.stable() == image.bytes(), !write_back);
    }
}

#[test]
fn s5_2_6_2_a_cache_that_was_off_all_the_time_is_write_through() {
    let (mut guest, image) = guest(8, &BlockConfig::default(), F_SWITCH);
    guest.set_writeback(0);
    assert_eq!(guest.config::<1>(32), [0]);
    for sector in 0..4 {
        assert_eq!(guest.request(OUT, sector, &[7; 512], 0), answer(OK, 1));
        assert!(image.stable() == image.bytes());
    }
    guest.set_writeback(1);
    let before = image.stable();
    assert_eq!(guest.request(OUT, 5, &[7; 512], 0), answer(OK, 1));
    assert!(image.stable() == before, "and on again it is one");
    assert_eq!(guest.request(FLUSH, 0, &[], 0), answer(OK, 1));
    assert!(image.stable() == image.bytes());
}

/// More than the specification asks for: the driver can't flush what it wrote before.
#[test]
fn s5_2_6_2_what_was_cached_is_flushed_when_the_cache_is_turned_off() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_SWITCH);
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert!(image.stable() != image.bytes());
    guest.set_writeback(0);
    assert_eq!(guest.kick().processed, 0, "a flush of the worker's own is no request");
    assert!(image.stable() == image.bytes());
    assert_eq!(image.flushes(), 1);
    guest.kick();
    assert_eq!(image.flushes(), 1, "once");
}

#[test]
fn s5_2_6_2_a_failing_flush_of_the_workers_own_is_told_to_the_host() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_SWITCH);
    guest.set_writeback(0);
    image.inject(Fault::Errno(libc::EIO));
    guest.kick();
    let error = guest.worker.take_last_error().unwrap();
    assert_eq!((error.kind, error.source.raw_os_error()), (RequestKind::Flush, Some(libc::EIO)));
    assert_eq!(guest.request(IN, 1, &[], 512).status, OK);
}

/// The worker is in the midst of a batch when the driver turns the cache off and then writes.
#[test]
fn s5_2_6_2_a_write_after_the_switch_is_stable_in_the_same_batch() {
    let image = Arc::new(FakeImage::new(contents(1024), false));
    let engine = |hook| Hooked { inner: SyncEngine::new(Arc::clone(&image)), hook };
    let config = BlockConfig::default();
    let mut guest = Guest::new(image.capacity(), &config, F_SWITCH, engine(Box::new(|| ())));

    let mut device = BlockDevice::new(image.capacity(), &config).unwrap();
    device.accept_features(F_SWITCH);
    let params = device.params();
    // So much that the worker has it carried out before it takes more.
    let part = guest.out(&[7; 64 << 10]);
    let bufs = [guest.header(OUT, 8), part, part, part, part, guest.room(1)];
    guest.add(&bufs);
    let bufs = [guest.header(OUT, 2), guest.out(&[8; 512]), guest.room(1)];
    guest.add(&bufs);
    let (memory, index) = guest.unpublish(1);
    let hook = move || {
        device.write_config(32, &[0]);
        publish(&memory, index);
    };
    guest.replace_worker(engine(Box::new(hook)), &params);
    assert_eq!(guest.worker.run().processed, 2);
    assert_eq!(guest.used().len(), 2);
    assert_eq!(image.stable()[1024..1536], [8; 512]);
}

#[test]
fn s5_2_6_2_a_reset_gives_the_cache_back_its_mode() {
    let (mut guest, _) = guest(4, &BlockConfig::default(), F_SWITCH);
    guest.set_writeback(0);
    let outcome = guest.transport.write(Register::Status.offset(), &[0; 4], &mut NoQueues);
    assert_eq!(outcome, WriteOutcome::Done);
    assert_eq!(guest.config::<1>(32), [1]);
    assert!(!guest.transport.device().is_write_back(), "until the driver says what it knows");
}

#[test]
fn a_restored_device_has_its_cache_off_if_the_driver_had_switched_it_off() {
    for value in [0, 1] {
        let (mut guest, _) = guest(4, &BlockConfig::default(), F_SWITCH);
        guest.set_writeback(value);
        let state = guest.transport.state();
        let device = BlockDevice::new(4 * 512, &BlockConfig::default()).unwrap();
        let restored = MmioTransport::builder(device, || ()).restore(&state).unwrap();
        assert_eq!(restored.device().is_write_back(), value == 1);
        assert_eq!(restored.device().config(), guest.transport.device().config());
        assert_eq!(restored.state(), state);
    }
}

#[test]
fn s5_2_5_writeback_is_not_written_before_features_ok() {
    let device = BlockDevice::new(4 * 512, &BlockConfig::default()).unwrap();
    let mut transport = MmioTransport::new(device, || ()).unwrap();
    let _ = transport.write(Register::Status.offset(), &3_u32.to_le_bytes(), &mut NoQueues);
    let outcome = transport.write(0x100 + 32, &[0], &mut NoQueues);
    assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Config));
    assert_eq!(transport.device().config()[32], 1);
}

#[test]
fn s2_5_a_switch_that_changes_nothing_leaves_the_generation() {
    let generation = |features, values: &[u8]| {
        let (mut guest, _) = guest(4, &BlockConfig::default(), features);
        for value in values {
            let _ = guest.transport.write(0x100 + 32, &[*value], &mut NoQueues);
        }
        guest.register(Register::ConfigGeneration)
    };
    assert_eq!(generation(F_ALL, &[0, 1, 0]), 0, "without CONFIG_WCE they are ignored");
    assert_eq!(generation(F_SWITCH, &[1, 1, 7]), 0);
    assert_eq!(generation(F_SWITCH, &[0, 0, 1]), 2);
}

#[test]
fn s2_5_features_that_turn_the_cache_off_change_the_generation() {
    let generation = |features| {
        let (mut guest, _) = guest(4, &BlockConfig::default(), features);
        guest.register(Register::ConfigGeneration)
    };
    assert_eq!(generation(F_SWITCH), 0, "writeback reads 1 before and after");
    assert_eq!(generation(F_SWITCH & !F_FLUSH), 1, "writeback read 1 and reads 0 now");
}

#[test]
fn s5_2_5_1_writeback_takes_no_write_without_config_wce() {
    let (mut guest, image) = guest(4, &BlockConfig::default(), F_ALL);
    let outcome = guest.transport.write(0x100 + 32, &[0], &mut NoQueues);
    assert_eq!(outcome, WriteOutcome::Ignored(Ignored::Config));
    assert!(guest.transport.device().is_write_back());
    assert_eq!(guest.request(OUT, 1, &[7; 512], 0), answer(OK, 1));
    assert!(image.stable() != image.bytes());
}
