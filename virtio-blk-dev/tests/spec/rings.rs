//! What a block device makes of the rings (§2), and the features that are about them (§6).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use virtio_blk_dev::fake::{FakeEngine, FakeImage, Fault};
use virtio_blk_dev::{BlockConfig, BlockDevice, Engine, Image, InOrder, SyncEngine};
use virtio_dev::VirtioDevice;
use virtio_dev::vm_memory::{Bytes, GuestAddress};

use super::common::*;
use super::{Hooked, writable};

#[test]
fn s2_7_4_framing_means_nothing() {
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
fn s2_7_5_3_requests_in_indirect_tables() {
    let (mut guest, _) = writable(8);
    let bufs = [guest.header(IN, 2), guest.room(512), guest.room(1)];
    let head = guest.add_indirect(&bufs);
    guest.kick();
    assert_eq!(guest.used(), [(head, 513)]);
    assert_eq!(guest.get(bufs[1].addr, 512), [2; 512]);
    assert_eq!(guest.get(bufs[2].addr, 1), [OK]);
}

#[test]
fn s2_7_8_2_length_counts_from_the_first_writable_byte_and_is_never_overstated() {
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
    image.inject(Fault::Errno(libc::EIO));
    let failed = guest.request(IN, 0, &[], 512);
    assert_eq!((failed.status, failed.len), (IOERR, 0));
}

#[test]
#[cfg_attr(miri, ignore = "Miri's queues have no room for so many requests")]
fn s2_7_10_notifications_are_asked_for_again_only_when_all_is_taken() {
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
fn s2_7_7_one_interrupt_for_a_batch() {
    for features in [F_ALL, F_ALL & !F_EVENT_IDX] {
        let (mut guest, _) = guest(8, &BlockConfig::default(), features);
        let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
        let raised = || guest.raised.load(Ordering::Relaxed);
        assert_eq!(raised(), 0);
        for round in 1..4 {
            for _ in 0..10 {
                guest.add(&bufs);
            }
            guest.kick();
            assert_eq!(guest.raised.load(Ordering::Relaxed), round);
            assert_eq!(guest.acknowledge(), 1);
            assert_eq!(guest.used().len(), 10);
        }
    }
}

#[test]
fn s2_1_2_a_descriptor_loop_asks_for_a_reset() {
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
fn s2_6_1_a_queue_is_reset_and_set_up_again_by_itself() {
    let (mut guest, image) = guest(8, &BlockConfig::default(), F_ALL | F_RING_RESET);
    assert_ne!(guest.transport.features() & F_RING_RESET, 0);
    assert_eq!(guest.request(IN, 1, &[], 512).data, [1; 512]);
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.restart_queue();
    assert_eq!(guest.transport.status().bits(), 15, "the device goes on");
    let params = guest.transport.device().params();
    guest.replace_worker(SyncEngine::new(image), &params);
    assert_eq!(guest.kick().processed, 0, "what was available is forgotten");
    assert_eq!(guest.request(IN, 2, &[], 512).data, [2; 512]);
}

/// Whatever the driver makes available until the answers are out is found without a kick, which
/// costs a guest of Xen a trap.
#[test]
fn s2_7_10_notifications_stay_off_until_a_batch_is_answered() {
    let image = Arc::new(FakeImage::new(contents(4), false));
    let engine = |hook| Hooked { inner: SyncEngine::new(Arc::clone(&image)), hook };
    let features = F_ALL & !F_EVENT_IDX;
    let mut guest =
        Guest::new(image.capacity(), &BlockConfig::default(), features, engine(Box::new(|| ())));
    let params = guest.transport.device().params();
    for sector in [1, 2] {
        let bufs = [guest.header(IN, sector), guest.room(512), guest.room(1)];
        guest.add(&bufs);
    }
    let (memory, index) = guest.unpublish(1);
    let flags = |memory: &Memory| memory.read_obj::<u16>(GuestAddress(USED)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (hook_memory, hook_seen) = (Arc::clone(&memory), Arc::clone(&seen));
    let hook = move || {
        hook_seen.lock().unwrap().push(flags(&hook_memory));
        publish(&hook_memory, index);
    };
    guest.replace_worker(engine(Box::new(hook)), &params);
    while guest.worker.run().more {}
    assert_eq!(guest.used().len(), 2);
    assert_eq!(*seen.lock().unwrap(), [1, 1], "VIRTQ_USED_F_NO_NOTIFY");
    assert_eq!(flags(&memory), 0);
}

/// Head by head, as they were made available.
fn in_order(guest: &mut Guest, requests: &[Vec<Buf>]) {
    let heads: Vec<u16> = requests.iter().map(|bufs| guest.add(bufs)).collect();
    guest.finish();
    let used: Vec<u16> = guest.used().into_iter().map(|(head, _)| head).collect();
    assert_eq!(used, heads);
}

/// What an engine that keeps the order says of itself.
fn kept() -> Option<InOrder> {
    let kept = InOrder::of(&SyncEngine::new(Arc::new(FakeImage::new(contents(1), false))));
    assert!(kept.is_some());
    kept
}

fn late_engine(image: &Arc<FakeImage>) -> FakeEngine {
    FakeEngine::new(Arc::clone(image) as Arc<dyn Image>, 7).unwrap()
}

#[test]
fn s2_7_9_1_in_order_is_offered_only_with_engines_that_keep_the_order() {
    let offered = |in_order| {
        let config = BlockConfig { in_order, ..BlockConfig::default() };
        BlockDevice::new(4096, &config).unwrap().features() & F_IN_ORDER
    };
    let image = Arc::new(FakeImage::new(contents(1), false));
    let boxed: Box<dyn Engine> = Box::new(late_engine(&image));
    assert_eq!((offered(InOrder::of(&boxed)), offered(kept())), (0, F_IN_ORDER));
}

#[test]
fn s2_7_9_1_an_engine_that_keeps_no_order_serves_no_device_that_promised_it() {
    let image = Arc::new(FakeImage::new(contents(16), false));
    let config = BlockConfig { in_order: kept(), ..BlockConfig::default() };
    let mut guest = Guest::new(16 * 512, &config, F_ALL | F_IN_ORDER, late_engine(&image));
    let bufs = [guest.header(IN, 1), guest.room(512), guest.room(1)];
    guest.add(&bufs);
    guest.finish();
    assert!(guest.worker.is_broken() && guest.needs_reset());
    assert!(guest.used().is_empty());
}

#[test]
fn s2_7_9_1_flushes_and_writes_are_used_in_the_order_in_which_they_came() {
    // With a cache and without; and once no flush succeeds any more.
    for features in [F_ALL | F_IN_ORDER, F_ALL & !F_FLUSH | F_IN_ORDER] {
        let config = BlockConfig { in_order: kept(), ..BlockConfig::default() };
        let (mut guest, image) = guest(16, &config, features);
        let mut requests = Vec::new();
        for kind in [OUT, FLUSH, FLUSH, OUT, FLUSH, IN, FLUSH, OUT, FLUSH, FLUSH] {
            let mut bufs = vec![guest.header(kind, 1)];
            match kind {
                IN => bufs.push(guest.room(512)),
                OUT => bufs.push(guest.out(&[7; 512])),
                _ => {}
            }
            bufs.push(guest.room(1));
            requests.push(bufs);
        }
        in_order(&mut guest, &requests);
        image.inject(Fault::Short(512));
        image.inject(Fault::Errno(libc::EIO));
        in_order(&mut guest, &requests);
        assert!(guest.transport.device().durability().is_lost());
        in_order(&mut guest, &requests);
    }
}

#[test]
fn s2_7_9_1_requests_are_used_in_the_order_in_which_they_came() {
    let image = FakeImage::new(contents(16), false).with_commands(COMMANDS);
    let config = BlockConfig { in_order: kept(), ..BlockConfig::for_image(&image) };
    let features = F_ALL | F_IN_ORDER | F_DISCARD | F_WRITE_ZEROES;
    let (mut guest, image) = guest_on(image, &config, features);
    let list = ranges(&[(1, 1, 0), (3, 1, 0), (5, 1, 0)]);
    let mut requests = Vec::new();
    for (nth, kind) in
        [IN, DISCARD, OUT, WRITE_ZEROES, WRITE_ZEROES, GET_ID, 99, DISCARD, FLUSH, IN]
            .into_iter()
            .enumerate()
    {
        let mut bufs = vec![guest.header(kind, nth as u64)];
        match kind {
            IN | GET_ID => bufs.push(guest.room(512)),
            OUT => bufs.push(guest.out(&[7; 512])),
            DISCARD | WRITE_ZEROES => bufs.push(guest.out(&list)),
            _ => {}
        }
        bufs.push(guest.room(1));
        requests.push(bufs);
    }
    in_order(&mut guest, &requests);
    // An error of the host in the midst of a list, too.
    image.inject(Fault::Short(512));
    image.inject(Fault::Short(0));
    image.inject(Fault::Errno(libc::EIO));
    in_order(&mut guest, &requests);
}
