//! §2.7 split rings: what is available, in flight and used.

use virtio_dev::vm_memory::{Bytes, GuestAddress};
use virtio_dev::{Positions, RingFault, process_queue};

use crate::common::{DATA, Desc, NEXT, Ram, Ring, WRITE, live_queue, needs_reset, new_queue, ram};
use crate::offer;

#[test]
fn completions_come_in_any_order_and_indices_run_round() {
    const ROUNDS: u16 = if cfg!(miri) { 8 } else { 40 };
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    (ring.avail_idx, ring.last_used) = (0xfffd, 0xfffd);
    ring.publish();
    mem.write_obj(0xfffd_u16, GuestAddress(ring.at.used + 2)).unwrap();
    let (mut queue, _driver) = live_queue(&ring, false);
    for round in 0..u32::from(ROUNDS) {
        for head in 0..3 {
            offer(&mut ring, head);
        }
        let chains: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(chains.iter().map(|c| c.head()).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(queue.in_flight(), 3);
        for chain in chains.into_iter().rev() {
            queue.complete(chain, round % 8);
        }
        assert_eq!(ring.used(), [], "staged, not published");
        assert!(queue.publish());
        let len = round % 8;
        assert_eq!(ring.used(), [(2, len), (1, len), (0, len)]);
        assert_eq!(queue.in_flight(), 0);
    }
    let position = 0xfffd_u16.wrapping_add(3 * ROUNDS);
    assert_eq!(
        queue.state(),
        Positions { next_avail: position, next_used: position, broken: false }
    );
    assert!(!queue.is_broken());
}

#[test]
fn s2_7_6_1_the_available_index_never_jumps_by_more_than_the_size() {
    for (jump, fine) in [(1, true), (16, true), (17, false), (0x8000, false), (0xffff, false)] {
        let mem = &ram();
        let mut ring = Ring::new(mem, 16);
        for head in 0..16 {
            ring.desc(head, Desc(DATA, 8, 0, 0));
            ring.entry(head);
        }
        let (mut queue, driver) = live_queue(&ring, false);
        // The helper's config starts at the ring's own index.
        ring.set_avail_idx(16_u16.wrapping_add(jump));
        assert_eq!(queue.pop().is_some(), fine, "{jump}");
        assert_eq!(queue.fault(), (!fine).then_some(RingFault::AvailIndex(jump)));
        assert_eq!((queue.is_broken(), needs_reset(&driver)), (!fine, !fine));
    }
}

#[test]
fn a_head_out_of_range_breaks_the_queue() {
    for head in [16, 17, 0xffff] {
        let mem = &ram();
        let mut ring = Ring::new(mem, 16);
        let (mut queue, driver) = live_queue(&ring, false);
        ring.offer(head);
        assert!(queue.pop().is_none());
        assert_eq!(queue.fault(), Some(RingFault::DescriptorIndex(head)));
        assert!(needs_reset(&driver));
    }
}

#[test]
fn a_head_in_flight_may_not_come_again_before_its_answer_is_published() {
    let mem = &ram();
    for publish in [false, true] {
        let mut ring = Ring::new(mem, 16);
        let (mut queue, driver) = live_queue(&ring, false);
        offer(&mut ring, 3);
        let chain = queue.pop().unwrap();
        queue.complete(chain, 0);
        if publish {
            queue.publish();
        }
        offer(&mut ring, 3);
        assert_eq!(queue.pop().is_some(), publish);
        assert_eq!(needs_reset(&driver), !publish);
        if !publish {
            assert_eq!(queue.fault(), Some(RingFault::HeadInFlight(3)));
        }
        ring.set_avail_idx(0);
        mem.write_obj(0_u32, GuestAddress(ring.at.used)).unwrap();
    }
}

#[test]
fn a_broken_queue_still_answers_what_is_in_flight() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, false);
    offer(&mut ring, 0);
    let chain = queue.pop().unwrap();
    ring.offer(99);
    assert!(queue.pop().is_none());
    assert!(queue.is_broken());
    ring.entry(0);
    ring.publish();
    assert!(queue.pop().is_none(), "for good");
    assert!(!queue.enable_notification());
    queue.complete(chain, 8);
    queue.publish();
    assert_eq!(ring.used(), [(0, 8)]);
    assert!(needs_reset(&driver));
}

#[test]
fn a_chain_of_another_queue_is_not_completed_here() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, false);
    offer(&mut ring, 5);
    let mut other = new_queue(&queue_config_0(&ring), mem, driver.interrupt());
    let chain = other.pop().unwrap();
    queue.complete(chain, 0);
    assert_eq!(queue.fault(), Some(RingFault::NotInFlight(5)));
    assert!(!queue.publish());
    assert_eq!(ring.used_idx(), 0);
}

fn queue_config_0(ring: &Ring<'_, Ram>) -> virtio_dev::QueueConfig {
    virtio_dev::QueueConfig { next_avail: 0, next_used: 0, ..ring.config(false) }
}

#[test]
fn s2_7_8_2_the_used_length_is_never_overstated() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, _driver) = live_queue(&ring, false);
    ring.desc(0, Desc(DATA, 100, NEXT, 1));
    ring.desc(1, Desc(DATA, 8, WRITE, 0));
    ring.offer(0);
    let chain = queue.pop().unwrap();
    queue.complete(chain, 108);
    queue.publish();
    assert_eq!(ring.used(), [(0, 8)]);
}

#[test]
fn process_queue_serves_all_and_comes_back_from_a_driver_that_never_stops() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, true);
    (0..3).for_each(|head| offer(&mut ring, head));
    let more = process_queue(&mut queue, |chain| {
        chain.copy_to(0, &[7; 8]).unwrap();
        8
    });
    assert!(!more);
    assert_eq!(ring.used(), [(0, 8), (1, 8), (2, 8)]);
    assert_eq!((ring.avail_event(), driver.edges()), (3, 1));

    let mut served = 0;
    offer(&mut ring, 0);
    let more = process_queue(&mut queue, |_| {
        served += 1;
        offer(&mut ring, served % 16);
        0
    });
    assert!(more);
    assert_eq!(served, 16);
    assert_eq!(ring.used_idx(), 19);
}
