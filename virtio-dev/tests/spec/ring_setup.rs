//! §2.7 where a split ring may lie.

use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{Buffer, LiveQueue, Positions, QueueError, feature};

use crate::common::{
    DATA, Driver, RAM_SIZE, RING, Ram, Ring, live_queue, needs_reset, new_queue, ram,
};
use crate::offer;

#[test]
fn s2_7_rings_are_aligned_16_2_and_4() {
    let mem = &ram();
    let ring = Ring::new(mem, 16);
    for (part, align) in [("descriptor table", 16), ("available ring", 2), ("used ring", 4)] {
        for off in 1..align {
            let mut config = ring.config(false);
            let addr = match part {
                "descriptor table" => &mut config.desc_table,
                "available ring" => &mut config.avail_ring,
                _ => &mut config.used_ring,
            };
            *addr += off;
            let addr = *addr;
            let driver = Driver::live(feature::VERSION_1);
            let queue = LiveQueue::new(&config, &mem, mem, driver.interrupt());
            assert_eq!(queue.err(), Some(QueueError::Alignment { index: 0, part, addr, align }));
            assert!(needs_reset(&driver));
        }
    }
}

#[test]
fn rings_outside_memory_are_refused_and_the_driver_is_told() {
    let mem = &ram();
    let end = RAM_SIZE as u64;
    let cases: [(&str, u64, bool); 7] = [
        ("descriptor table", end - 16 * 16, true),
        ("descriptor table", end - 16 * 15, false),
        ("available ring", end - 36, true),
        ("available ring", end - 34, false),
        ("used ring", end - 132, true),
        ("used ring", end - 128, false),
        ("used ring", 1 << 63, false),
    ];
    for (part, addr, fits) in cases {
        let mut config = Ring::new(mem, 16).config(false);
        match part {
            "descriptor table" => config.desc_table = addr,
            "available ring" => config.avail_ring = addr,
            _ => config.used_ring = addr,
        }
        let driver = Driver::live(feature::VERSION_1);
        let queue = LiveQueue::new(&config, &mem, mem, driver.interrupt());
        match queue.err() {
            None => assert!(fits, "{part} {addr:#x}"),
            Some(QueueError::Inaccessible { part: named, addr: at, .. }) => {
                assert_eq!((named, at, fits), (part, addr, false));
            }
            Some(error) => panic!("{error}"),
        }
        assert_eq!(needs_reset(&driver), !fits);
        // The event index is a part of the ring only if it was negotiated.
        config.event_idx = true;
        let queue = LiveQueue::new(&config, &mem, mem, driver.interrupt());
        assert_eq!(queue.is_ok(), fits && part == "descriptor table", "{part} {addr:#x}");
    }
}

#[test]
fn rings_that_wrap_around_the_address_space_are_refused() {
    let mem = &ram();
    let mut config = Ring::new(mem, 16).config(false);
    config.desc_table = u64::MAX - 15;
    let driver = Driver::live(feature::VERSION_1);
    let queue = LiveQueue::new(&config, &mem, mem, driver.interrupt());
    assert!(matches!(queue.err(), Some(QueueError::Overflow { len: 256, .. })));
    assert!(needs_reset(&driver));
}

#[test]
fn a_size_that_is_no_power_of_two_is_refused() {
    let mem = &ram();
    for size in [0, 3, 48] {
        let mut config = Ring::new(mem, 16).config(false);
        config.size = size;
        let driver = Driver::live(feature::VERSION_1);
        let queue = LiveQueue::new(&config, &mem, mem, driver.interrupt());
        assert_eq!(queue.err(), Some(QueueError::Size { index: 0, size }));
    }
}

#[test]
fn rings_may_lie_in_several_pieces_of_memory() {
    const SIZE: u16 = 16;
    // Cuts in each part; in the used ring through the middle of an entry.
    let cuts = [RING.desc + 5 * 16, RING.avail + 4 + 7 * 2, RING.used + 4 + 3 * 8 + 4];
    let starts = [0].into_iter().chain(cuts);
    let banks: Vec<_> = starts
        .zip(cuts.into_iter().chain([RAM_SIZE as u64]))
        .map(|(start, end)| (GuestAddress(start), (end - start) as usize))
        .collect();
    let mem = &Ram::from_ranges(&banks).unwrap();
    for event_idx in [false, true] {
        let mut ring = Ring::new(mem, SIZE);
        let (mut queue, driver) = live_queue(&ring, event_idx);
        ring.set_used_event(u16::MAX);
        for round in 0..3_u16 {
            (0..SIZE).for_each(|head| offer(&mut ring, head));
            if round == 2 {
                ring.set_used_event(ring.last_used);
            }
            let edges = driver.edges();
            // Nobody acknowledges the first, and the line stays up.
            queue.batch(|batch| {
                while let Some(chain) = batch.pop() {
                    assert_eq!(chain.writable(), [Buffer { addr: GuestAddress(DATA), len: 8 }]);
                    batch.complete(chain, 3);
                }
                batch.publish();
                assert!(!batch.enable_notification());
            });
            assert_eq!(ring.used(), (0..SIZE.into()).map(|head| (head, 3)).collect::<Vec<_>>());
            assert_eq!(
                driver.edges() - edges,
                u64::from(!event_idx && round == 0 || event_idx && round == 2)
            );
            if event_idx {
                assert_eq!(ring.avail_event(), ring.avail_idx);
            }
        }
        assert_eq!(queue.fault(), None);
        drop(queue);
        ring.set_avail_idx(0);
        mem.write_obj(0_u32, GuestAddress(ring.at.used)).unwrap();
    }
}

#[test]
fn a_resumed_queue_goes_on_at_its_positions() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, true);
    offer(&mut ring, 0);
    offer(&mut ring, 1);
    let chain = queue.pop().unwrap();
    queue.complete(chain, 0);
    queue.publish();
    let Positions { next_avail, next_used, .. } = queue.state();
    assert_eq!((next_avail, next_used), (1, 1), "read ahead is not taken");
    drop(queue);
    let mut config = ring.config(true);
    (config.next_avail, config.next_used) = (next_avail, next_used);
    let mut queue = new_queue(&config, mem, driver.interrupt());
    let chain = queue.pop().unwrap();
    assert_eq!(chain.head(), 1);
    queue.complete(chain, 0);
    queue.publish();
    assert_eq!(ring.used(), [(0, 0), (1, 0)]);
}
