//! §2.7 split rings: the rings themselves.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use virtio_mmio_dev::vm_memory::{Bytes, GuestAddress, GuestAddressSpace};
use virtio_mmio_dev::{
    Buffer, LiveQueue, Positions, QueueError, Register, RingFault, feature, process_queue,
};

use crate::common::{
    DATA, Desc, NEXT, RAM_SIZE, RING, Ram, Ring, WRITE, Window, live_queue, needs_reset, new_queue,
    ram,
};

/// Makes one writable buffer at descriptor `head` available.
fn offer(ring: &mut Ring<'_, Ram>, head: u16) {
    ring.desc(head, Desc(DATA, 8, WRITE, 0));
    ring.offer(head);
}

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
            let window = Window::live(feature::VERSION_1);
            let queue = LiveQueue::new(&config, &mem, mem, window.transport.interrupt());
            assert_eq!(queue.err(), Some(QueueError::Alignment { index: 0, part, addr, align }));
            assert!(needs_reset(&window));
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
        let window = Window::live(feature::VERSION_1);
        let queue = LiveQueue::new(&config, &mem, mem, window.transport.interrupt());
        match queue.err() {
            None => assert!(fits, "{part} {addr:#x}"),
            Some(QueueError::Inaccessible { part: named, addr: at, .. }) => {
                assert_eq!((named, at, fits), (part, addr, false));
            }
            Some(error) => panic!("{error}"),
        }
        assert_eq!(needs_reset(&window), !fits);
        // The event index is a part of the ring only if it was negotiated.
        config.event_idx = true;
        let queue = LiveQueue::new(&config, &mem, mem, window.transport.interrupt());
        assert_eq!(queue.is_ok(), fits && part == "descriptor table", "{part} {addr:#x}");
    }
}

#[test]
fn rings_that_wrap_around_the_address_space_are_refused() {
    let mem = &ram();
    let mut config = Ring::new(mem, 16).config(false);
    config.desc_table = u64::MAX - 15;
    let window = Window::live(feature::VERSION_1);
    let queue = LiveQueue::new(&config, &mem, mem, window.transport.interrupt());
    assert!(matches!(queue.err(), Some(QueueError::Overflow { len: 256, .. })));
    assert!(needs_reset(&window));
}

#[test]
fn a_size_that_is_no_power_of_two_is_refused() {
    let mem = &ram();
    for size in [0, 3, 48] {
        let mut config = Ring::new(mem, 16).config(false);
        config.size = size;
        let window = Window::live(feature::VERSION_1);
        let queue = LiveQueue::new(&config, &mem, mem, window.transport.interrupt());
        assert_eq!(queue.err(), Some(QueueError::Size { index: 0, size }));
    }
}

#[test]
fn completions_come_in_any_order_and_indices_run_round() {
    const ROUNDS: u16 = if cfg!(miri) { 8 } else { 40 };
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    (ring.avail_idx, ring.last_used) = (0xfffd, 0xfffd);
    ring.publish();
    mem.write_obj(0xfffd_u16, GuestAddress(ring.at.used + 2)).unwrap();
    let (mut queue, _window) = live_queue(&ring, false);
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
        let (mut queue, window) = live_queue(&ring, event_idx);
        ring.set_used_event(u16::MAX);
        for round in 0..3_u16 {
            (0..SIZE).for_each(|head| offer(&mut ring, head));
            if round == 2 {
                ring.set_used_event(ring.last_used);
            }
            let edges = window.edges();
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
                window.edges() - edges,
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
    let (mut queue, window) = live_queue(&ring, true);
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
    let mut queue = new_queue(&config, mem, window.transport.interrupt());
    let chain = queue.pop().unwrap();
    assert_eq!(chain.head(), 1);
    queue.complete(chain, 0);
    queue.publish();
    assert_eq!(ring.used(), [(0, 0), (1, 0)]);
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
        let (mut queue, window) = live_queue(&ring, false);
        // The helper's config starts at the ring's own index.
        ring.set_avail_idx(16_u16.wrapping_add(jump));
        assert_eq!(queue.pop().is_some(), fine, "{jump}");
        assert_eq!(queue.fault(), (!fine).then_some(RingFault::AvailIndex(jump)));
        assert_eq!((queue.is_broken(), needs_reset(&window)), (!fine, !fine));
    }
}

#[test]
fn a_head_out_of_range_breaks_the_queue() {
    for head in [16, 17, 0xffff] {
        let mem = &ram();
        let mut ring = Ring::new(mem, 16);
        let (mut queue, window) = live_queue(&ring, false);
        ring.offer(head);
        assert!(queue.pop().is_none());
        assert_eq!(queue.fault(), Some(RingFault::DescriptorIndex(head)));
        assert!(needs_reset(&window));
    }
}

#[test]
fn a_head_in_flight_may_not_come_again_before_its_answer_is_published() {
    let mem = &ram();
    for publish in [false, true] {
        let mut ring = Ring::new(mem, 16);
        let (mut queue, window) = live_queue(&ring, false);
        offer(&mut ring, 3);
        let chain = queue.pop().unwrap();
        queue.complete(chain, 0);
        if publish {
            queue.publish();
        }
        offer(&mut ring, 3);
        assert_eq!(queue.pop().is_some(), publish);
        assert_eq!(needs_reset(&window), !publish);
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
    let (mut queue, window) = live_queue(&ring, false);
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
    assert!(needs_reset(&window));
}

#[test]
fn a_chain_of_another_queue_is_not_completed_here() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, window) = live_queue(&ring, false);
    offer(&mut ring, 5);
    let mut other = new_queue(&queue_config_0(&ring), mem, window.transport.interrupt());
    let chain = other.pop().unwrap();
    queue.complete(chain, 0);
    assert_eq!(queue.fault(), Some(RingFault::NotInFlight(5)));
    assert!(!queue.publish());
    assert_eq!(ring.used_idx(), 0);
}

fn queue_config_0(ring: &Ring<'_, Ram>) -> virtio_mmio_dev::QueueConfig {
    virtio_mmio_dev::QueueConfig { next_avail: 0, next_used: 0, ..ring.config(false) }
}

#[test]
fn s2_7_8_2_the_used_length_is_never_overstated() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, _window) = live_queue(&ring, false);
    ring.desc(0, Desc(DATA, 100, NEXT, 1));
    ring.desc(1, Desc(DATA, 8, WRITE, 0));
    ring.offer(0);
    let chain = queue.pop().unwrap();
    queue.complete(chain, 108);
    queue.publish();
    assert_eq!(ring.used(), [(0, 8)]);
}

#[test]
fn publish_with_nothing_staged_does_nothing() {
    let mem = &ram();
    let ring = Ring::new(mem, 16);
    let (mut queue, window) = live_queue(&ring, false);
    mem.write_obj(0x7777_u16, GuestAddress(ring.at.used + 2)).unwrap();
    assert!(!queue.publish());
    assert_eq!(ring.used_idx(), 0x7777, "not even the index is stored");
    assert_eq!(window.edges(), 0);
}

#[test]
fn a_batch_is_one_interrupt() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, mut window) = live_queue(&ring, false);
    (0..16).for_each(|head| offer(&mut ring, head));
    while let Some(chain) = queue.pop() {
        queue.complete(chain, 0);
    }
    assert!(queue.publish());
    assert_eq!(ring.used().len(), 16);
    assert_eq!(window.edges(), 1);
    assert_eq!(window.read(Register::InterruptStatus), 1);
}

#[test]
fn s2_7_7_without_event_idx_the_avail_flags_decide_on_the_interrupt() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, window) = live_queue(&ring, false);
    for (flags, wanted) in [(1, false), (0, true), (0xfffe, true), (0xffff, false)] {
        ring.set_avail_flags(flags);
        offer(&mut ring, 0);
        let chain = queue.pop().unwrap();
        queue.complete(chain, 0);
        assert_eq!(queue.publish(), wanted, "{flags:#x}");
    }
    assert_eq!(window.edges(), 1, "the second was not acknowledged");
}

#[test]
fn s2_7_7_with_event_idx_used_event_decides_and_the_avail_flags_do_not() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, _window) = live_queue(&ring, true);
    ring.set_avail_flags(1);
    // (used_event, batch, interrupt?) with the used index running 0, 1, 3, 4, 5, 7
    for (event, batch, wanted) in
        [(0, 1, true), (2, 2, true), (5, 1, false), (0xffff, 1, false), (5, 2, true)]
    {
        ring.set_used_event(event);
        (0..batch).for_each(|head| offer(&mut ring, head));
        while let Some(chain) = queue.pop() {
            queue.complete(chain, 0);
        }
        assert_eq!(queue.publish(), wanted, "event {event}");
    }
}

#[test]
fn s2_7_10_with_event_idx_the_used_flags_are_0_and_the_event_is_armed() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    mem.write_obj(1_u16, GuestAddress(ring.at.used)).unwrap();
    let (mut queue, _window) = live_queue(&ring, true);
    assert_eq!(ring.used_flags(), 0, "also if they weren't");
    for index in 0..5_u16 {
        queue.disable_notification();
        assert_eq!(ring.used_flags(), 0);
        assert!(!queue.enable_notification());
        assert_eq!((ring.avail_event(), ring.used_flags()), (index, 0));
        offer(&mut ring, 0);
        assert!(queue.enable_notification(), "came meanwhile");
        let chain = queue.pop().unwrap();
        queue.complete(chain, 0);
        queue.publish();
    }
}

#[test]
fn s2_7_10_without_event_idx_the_used_flags_ask_for_kicks() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, _window) = live_queue(&ring, false);
    assert_eq!(ring.used_flags(), 0);
    queue.disable_notification();
    assert_eq!(ring.used_flags(), 1);
    assert!(!queue.enable_notification());
    assert_eq!(ring.used_flags(), 0);
    offer(&mut ring, 0);
    offer(&mut ring, 1);
    assert!(queue.enable_notification());
    let chain = queue.pop().unwrap();
    assert!(queue.enable_notification(), "one is read ahead");
    queue.complete(chain, 0);
}

#[test]
fn process_queue_serves_all_and_comes_back_from_a_driver_that_never_stops() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, window) = live_queue(&ring, true);
    (0..3).for_each(|head| offer(&mut ring, head));
    let more = process_queue(&mut queue, |chain| {
        chain.copy_to(0, &[7; 8]).unwrap();
        8
    });
    assert!(!more);
    assert_eq!(ring.used(), [(0, 8), (1, 8), (2, 8)]);
    assert_eq!((ring.avail_event(), window.edges()), (3, 1));

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

/// Memory whose guards are counted.
#[derive(Clone)]
struct Counted<'a> {
    mem: &'a Ram,
    guards: Rc<Cell<i32>>,
    taken: Rc<Cell<i32>>,
}

struct Guard<'a> {
    mem: &'a Ram,
    guards: Rc<Cell<i32>>,
}

impl Deref for Guard<'_> {
    type Target = Ram;
    fn deref(&self) -> &Ram {
        self.mem
    }
}

impl Clone for Guard<'_> {
    fn clone(&self) -> Self {
        self.guards.set(self.guards.get() + 1);
        Self { mem: self.mem, guards: Rc::clone(&self.guards) }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.guards.set(self.guards.get() - 1);
    }
}

impl<'a> GuestAddressSpace for Counted<'a> {
    type M = Ram;
    type T = Guard<'a>;
    fn memory(&self) -> Guard<'a> {
        self.guards.set(self.guards.get() + 1);
        self.taken.set(self.taken.get() + 1);
        Guard { mem: self.mem, guards: Rc::clone(&self.guards) }
    }
}

#[test]
fn a_requests_memory_is_released_before_its_answer_and_the_rings_with_the_queue() {
    let mem = &ram();
    let space = || Counted { mem, guards: Rc::default(), taken: Rc::default() };
    let (rings, requests) = (space(), space());
    let (guards, taken) = (Rc::clone(&requests.guards), Rc::clone(&requests.taken));
    let window = Window::live(feature::VERSION_1);
    let mut ring = Ring::new(mem, 16);
    let mut queue =
        LiveQueue::new(&ring.config(false), &rings, requests, window.transport.interrupt())
            .unwrap();
    assert_eq!((rings.guards.get(), guards.get()), (1, 0));
    (0..3).for_each(|head| offer(&mut ring, head));
    let chains: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert_eq!((guards.get(), taken.get()), (3, 3), "one a chain");
    for (left, chain) in [2, 1, 0].into_iter().zip(chains) {
        queue.complete(chain, 0);
        assert_eq!(guards.get(), left);
        assert_eq!(ring.used_idx(), 0, "released, and not yet visible");
    }
    queue.publish();
    assert_eq!(ring.used_idx(), 3);
    assert_eq!(rings.taken.get(), 1, "the rings are looked up in one guard");
    drop(queue);
    assert_eq!(rings.guards.get(), 0);
}

#[test]
fn a_live_queue_can_move_to_its_worker() {
    fn is_send<T: Send>() {}
    type Shared = std::sync::Arc<Ram>;
    is_send::<LiveQueue<Shared, Shared>>();
    is_send::<virtio_mmio_dev::Chain<Shared>>();
}
