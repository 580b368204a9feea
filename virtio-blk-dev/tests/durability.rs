//! What a flush promises, how many of them there are, and what comes of one that fails.
#![cfg(feature = "test-utils")]

mod common;

use std::sync::Arc;

use common::late::Late;
use common::*;
use virtio_blk_dev::fake::{FakeEngine, FakeImage, Fault};
use virtio_blk_dev::{BlockConfig, Engine, Image, RequestKind, SyncEngine};

/// The driver may switch the cache.
const F_SWITCH: u64 = F_ALL | F_CONFIG_WCE;

fn disk(features: u64) -> (Guest, Arc<FakeImage>) {
    guest(16, &BlockConfig::default(), features)
}

fn flush(guest: &mut Guest) -> u8 {
    guest.request(FLUSH, 0, &[], 0).status
}

fn write(guest: &mut Guest) -> u8 {
    guest.request(OUT, 1, &[7; 512], 0).status
}

#[test]
fn after_a_failed_flush_every_later_flush_fails() {
    let (mut guest, image) = disk(F_ALL);
    assert_eq!((write(&mut guest), flush(&mut guest)), (OK, OK));
    image.inject(Fault::Errno(libc::EIO));
    for _ in 0..3 {
        assert_eq!(flush(&mut guest), IOERR);
    }
    assert_eq!(image.flushes(), 1, "nor is the image asked again");
    assert_eq!(
        guest.worker.stats().host_errors,
        1,
        "one error of the host, and what follows from it"
    );
    assert_eq!((write(&mut guest), guest.request(IN, 0, &[], 512).status), (OK, OK));
}

#[test]
fn after_a_failed_flush_every_other_queue_of_the_disk_fails_its_flushes() {
    let (mut first, image) = disk(F_ALL);
    let (mut second, _) = disk(F_ALL);
    let params = first.transport.device().params();
    second.replace_worker(SyncEngine::new(Arc::clone(&image)), &params);
    assert_eq!((flush(&mut first), flush(&mut second)), (OK, OK));
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!((flush(&mut first), flush(&mut second)), (IOERR, IOERR));
    assert!(first.transport.device().durability().is_lost());
    let loss = first.worker.take_durability_error().unwrap();
    assert_eq!((loss.kind, loss.source.raw_os_error()), (RequestKind::Flush, Some(libc::EIO)));
    assert!(
        first.worker.take_durability_error().is_none()
            && second.worker.take_durability_error().is_none(),
        "told once"
    );
}

#[test]
fn a_reset_does_not_mend_a_failed_flush() {
    let (mut guest, image) = disk(F_ALL);
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!(flush(&mut guest), IOERR);
    guest.restart(F_ALL);
    let params = guest.transport.device().params();
    guest.replace_worker(SyncEngine::new(image), &params);
    assert_eq!(flush(&mut guest), IOERR);
}

#[test]
fn after_a_failed_flush_writes_in_write_through_fail() {
    let (mut guest, image) = disk(F_SWITCH);
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!(flush(&mut guest), IOERR);
    guest.set_writeback(0);
    assert_eq!(write(&mut guest), IOERR);
    assert!(image.bytes() == contents(16), "nor is it begun");
    guest.set_writeback(1);
    assert_eq!(write(&mut guest), OK, "a cache promises nothing");
}

#[test]
fn a_write_in_write_through_that_failed_counts_as_a_failed_flush() {
    let (mut guest, image) = disk(F_SWITCH);
    guest.set_writeback(0);
    guest.kick();
    image.inject(Fault::Short(512));
    image.inject(Fault::Errno(libc::EIO));
    assert_eq!(write(&mut guest), IOERR);
    let loss = guest.worker.take_durability_error().unwrap();
    assert_eq!((loss.kind, loss.sector), (RequestKind::Write, 1));
    assert_eq!((write(&mut guest), flush(&mut guest)), (IOERR, IOERR));
}

#[test]
fn a_failed_flush_of_the_workers_own_counts() {
    let (mut guest, image) = disk(F_SWITCH);
    guest.set_writeback(0);
    image.inject(Fault::Errno(libc::EIO));
    guest.kick();
    assert!(guest.worker.take_durability_error().is_some());
    assert_eq!(flush(&mut guest), IOERR);
}

#[test]
fn a_failed_write_into_a_cache_is_no_failed_flush() {
    let (mut guest, image) = disk(F_ALL);
    image.inject(Fault::Errno(libc::ENOSPC));
    assert_eq!((write(&mut guest), flush(&mut guest)), (IOERR, OK));
    assert!(guest.worker.take_durability_error().is_none());
}

/// Makes `count` flushes available; their heads.
fn flushes<E: Engine>(guest: &mut Guest<E>, count: usize) -> Vec<u16> {
    (0..count)
        .map(|_| {
            let bufs = [guest.header(FLUSH, 0), guest.room(1)];
            guest.add(&bufs)
        })
        .collect()
}

#[test]
fn one_flush_answers_all_flushes_of_a_batch() {
    let (mut guest, image) = disk(F_ALL);
    flushes(&mut guest, 8);
    let bufs = [guest.header(OUT, 1), guest.out(&[7; 512]), guest.room(1)];
    guest.add(&bufs);
    flushes(&mut guest, 8);
    guest.kick();
    assert_eq!((guest.used().len(), image.flushes()), (17, 1));
    assert_eq!(flush(&mut guest), OK);
    assert_eq!(image.flushes(), 2, "but none of a later batch");

    let image = Arc::new(FakeImage::new(contents(16), false));
    let engine = FakeEngine::new(Arc::clone(&image) as Arc<dyn Image>, 5).unwrap();
    let mut guest = Guest::new(16 * 512, &BlockConfig::default(), F_ALL, engine);
    flushes(&mut guest, 16);
    guest.finish();
    assert_eq!((guest.used().len(), image.flushes()), (16, 1));
}

fn late(features: u64) -> (Guest<Late>, Late) {
    let image = Arc::new(FakeImage::new(contents(16), false).with_commands(COMMANDS));
    let engine = Late::new(&image);
    let config = BlockConfig::for_image(&*engine.image);
    (Guest::new(16 * 512, &config, features, engine.clone()), engine)
}

#[test]
fn a_flush_that_comes_while_one_is_under_way_is_answered_by_the_next() {
    let (mut guest, engine) = late(F_ALL);
    let first = flushes(&mut guest, 2);
    guest.kick();
    assert_eq!(engine.flushes_held(), 1);
    // The driver has this write back before it asks for the second flush, so that must cover it.
    let second = flushes(&mut guest, 3);
    guest.kick();
    assert_eq!((engine.flushes_held(), guest.worker.stats().in_flight), (1, 5));
    engine.release();
    guest.kick();
    let heads = |guest: &mut Guest<Late>| {
        let mut heads: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
        heads.sort_unstable();
        heads
    };
    let sorted = |mut heads: Vec<u16>| {
        heads.sort_unstable();
        heads
    };
    assert_eq!(heads(&mut guest), sorted(first));
    assert_eq!((engine.flushes_held(), engine.image.flushes()), (1, 1), "the next is under way");
    engine.release();
    guest.kick();
    assert_eq!(heads(&mut guest), sorted(second));
    assert_eq!((engine.image.flushes(), guest.worker.stats().in_flight), (2, 0));
}

#[test]
fn what_succeeded_beside_a_failed_flush_is_not_known_to_be_stable() {
    let (mut guest, engine) = late(F_SWITCH);
    guest.set_writeback(0);
    guest.kick();
    engine.release();
    guest.kick();
    // A write first: it succeeds, but its error may have been told to the flush.
    let bufs = [guest.header(OUT, 1), guest.out(&[7; 512]), guest.room(1)];
    guest.add(&bufs);
    flushes(&mut guest, 1);
    guest.kick();
    for fault in [Fault::Short(512), Fault::Short(0), Fault::Errno(libc::EIO)] {
        engine.image.inject(fault);
    }
    engine.release();
    guest.kick();
    assert_eq!(guest.used().len(), 2);
    assert_eq!(guest.get(bufs[2].addr, 1), [IOERR]);
}

/// Writes `count` sectors, each with a request of its own; where their statuses will be.
fn writes<E: Engine>(guest: &mut Guest<E>, count: u64) -> Vec<u64> {
    let statuses = (0..count)
        .map(|sector| {
            let bufs = [guest.header(OUT, sector), guest.out(&[7; 512]), guest.room(1)];
            guest.add(&bufs);
            bufs[2].addr
        })
        .collect();
    guest.kick();
    statuses
}

#[test]
fn a_durable_write_is_acknowledged_when_all_that_were_under_way_with_it_have_ended() {
    // Without a cache from the start.
    let (mut guest, engine) = late(F_ALL & !F_FLUSH);
    let status = |guest: &Guest<Late>, at| guest.get(at, 1)[0];
    let early = writes(&mut guest, 3);
    engine.end(1, Ok(()));
    guest.kick();
    assert_eq!(
        (guest.used().len(), guest.worker.stats().in_flight),
        (0, 3),
        "it may have its error"
    );
    let late = writes(&mut guest, 1);
    engine.end(0, Ok(()));
    guest.kick();
    assert_eq!(guest.used().len(), 0);
    engine.end(0, Ok(()));
    guest.kick();
    assert_eq!(guest.used().len(), 1, "that began before the late one, and isn't held up by it");
    assert_eq!(status(&guest, early[1]), OK);
    engine.end(0, Ok(()));
    guest.kick();
    assert_eq!(guest.used().len(), 3);
    for at in [early[0], early[2], late[0]] {
        assert_eq!(status(&guest, at), OK);
    }
    assert_eq!((engine.in_flight(), guest.worker.stats().in_flight), (0, 0));
}

#[test]
fn a_durable_write_is_not_acknowledged_if_another_that_was_under_way_with_it_failed() {
    let (mut guest, engine) = late(F_ALL & !F_FLUSH);
    let statuses = writes(&mut guest, 2);
    engine.end(1, Ok(()));
    guest.kick();
    engine.end(0, Err(libc::EIO));
    guest.kick();
    assert_eq!(guest.used().len(), 2);
    for at in statuses {
        assert_eq!(guest.get(at, 1), [IOERR]);
    }
}

#[test]
fn a_read_or_a_write_into_the_cache_waits_for_no_flush() {
    let (mut guest, engine) = late(F_ALL);
    flushes(&mut guest, 1);
    let status = writes(&mut guest, 1)[0];
    engine.end(1, Ok(()));
    guest.kick();
    assert_eq!((guest.used().len(), guest.get(status, 1)), (1, vec![OK]));
}

#[test]
fn a_write_in_write_through_that_there_was_no_room_for_loses_nothing_else() {
    for errno in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
        let (mut guest, image) = disk(F_ALL & !F_FLUSH);
        image.inject(Fault::Errno(errno));
        assert_eq!(write(&mut guest), IOERR, "errno {errno}");
        assert!(guest.worker.take_durability_error().is_none(), "errno {errno}");
        assert_eq!(guest.worker.stats().host_errors, 1);
        assert_eq!((write(&mut guest), flush(&mut guest)), (OK, OK), "errno {errno}");
        assert!(image.stable() == image.bytes());
    }
}

#[test]
fn data_that_was_taken_and_then_had_no_room_is_lost() {
    for errno in [libc::ENOSPC, libc::EDQUOT] {
        let (mut guest, image) = disk(F_ALL & !F_FLUSH);
        image.inject(Fault::Short(512));
        image.inject(Fault::Errno(errno));
        assert_eq!(write(&mut guest), IOERR, "errno {errno}");
        assert!(guest.worker.take_durability_error().is_some(), "errno {errno}");
        assert_eq!((write(&mut guest), flush(&mut guest)), (IOERR, IOERR), "errno {errno}");
    }
}

#[test]
fn however_often_the_cache_is_switched_two_flushes_of_the_workers_own_are_enough() {
    let (mut guest, engine) = late(F_SWITCH);
    for _ in 0..if cfg!(miri) { 10 } else { 10_000 } {
        guest.set_writeback(0);
        guest.worker.run();
        guest.set_writeback(1);
        guest.worker.run();
    }
    assert_eq!(engine.in_flight(), 1);
    assert!(guest.worker.stats().in_flight <= 2);
    engine.release();
    guest.worker.run();
    assert_eq!(engine.in_flight(), 1, "for the switches after the first was begun");
    engine.release();
    guest.worker.run();
    assert_eq!((engine.in_flight(), engine.image.flushes()), (0, 2));
}

#[test]
fn a_list_of_ranges_in_write_through_takes_one_flush() {
    for kind in [DISCARD, WRITE_ZEROES, SECURE_ERASE] {
        let image = FakeImage::new(contents(128), false).with_commands(COMMANDS);
        let features = F_ALL & !F_FLUSH | F_DISCARD | F_WRITE_ZEROES | F_SECURE_ERASE;
        let config = BlockConfig::for_image(&image);
        let (mut guest, image) = guest_on(image, &config, features);
        let list: Vec<_> = (0..64).map(|nth| (nth * 2, 1, 0)).collect();
        assert_eq!(guest.request(kind, 0, &ranges(&list), 0).status, OK, "type {kind}");
        assert_eq!(image.flushes(), 1, "type {kind}");
        assert!(image.stable() == image.bytes() && image.bytes() != contents(128));
    }
}
