//! Memory that many requests get, or give back, at once.

mod common;

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use virtio_dev::vm_memory::guest_memory::GuestMemorySliceIterator;
use virtio_dev::vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, Permissions,
};
use virtio_dev::{BulkMemory, Chain, LiveQueue, Released, RingFault, feature};

use common::{DATA, Desc, Driver, NEXT, Ram, Ring, WRITE, needs_reset, ram};

/// What was done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// For chains with these heads.
    Fetch(Vec<u16>),
    /// Of so many guards, when the driver saw so many used entries.
    Release(usize, u16),
    Drop,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    fn add(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Memory behind a translation, whose guards tell when they are dropped.
#[derive(Clone)]
struct Space {
    memory: &'static Translated,
    log: Log,
}

struct Translated(Ram);

struct Guard(Space);

impl Deref for Guard {
    type Target = Translated;
    fn deref(&self) -> &Translated {
        self.0.memory
    }
}

impl Clone for Guard {
    fn clone(&self) -> Self {
        panic!("a guard on memory behind a translation is cloned")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.log.add(Event::Drop);
    }
}

impl GuestAddressSpace for Space {
    type M = Translated;
    type T = Guard;
    fn memory(&self) -> Guard {
        Guard(self.clone())
    }
}

impl GuestMemory for Translated {
    type PhysicalMemory = Ram;
    type Bitmap = ();
    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        GuestMemory::check_range(&self.0, addr, count, access)
    }
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>, GuestMemoryError> {
        GuestMemory::get_slices(&self.0, addr, count, access)
    }
}

struct Bulk {
    log: Log,
    memory: &'static Ram,
}

impl BulkMemory<Space> for Bulk {
    fn fetch(&mut self, chains: &[Chain<Space>]) {
        self.log.add(Event::Fetch(chains.iter().map(Chain::head).collect()));
    }
    fn release(&mut self, chains: &mut Vec<Released<Space>>) {
        let used = Ring::new(self.memory, 8).used_idx();
        self.log.add(Event::Release(chains.len(), used));
        chains.clear();
    }
}

struct Setup {
    ring: Ring<'static, Ram>,
    queue: LiveQueue<Space, Space>,
    driver: Driver,
    log: Log,
}

/// A queue whose ring has chains with these heads, of a readable buffer of 100 bytes and a writable one.
fn setup(heads: &[u16]) -> Setup {
    let memory: &'static Translated = Box::leak(Box::new(Translated(ram())));
    let log = Log::default();
    let space = Space { memory, log: log.clone() };
    let mut ring = Ring::new(&memory.0, 8);
    let driver = Driver::live(feature::VERSION_1);
    let queue = LiveQueue::new(&ring.config(false), &space, space.clone(), driver.interrupt());
    let bulk = Bulk { log: log.clone(), memory: &memory.0 };
    let queue = queue.unwrap().with_bulk(Box::new(bulk));
    for &head in heads {
        ring.desc(head, Desc(DATA, 100, NEXT, head + 1));
        ring.desc(head + 1, Desc(DATA, 4, WRITE, 0));
        ring.offer(head);
    }
    log.take();
    Setup { ring, queue, driver, log }
}

#[test]
fn chains_are_fetched_together_and_released_before_they_are_published() {
    let Setup { mut ring, mut queue, log, .. } = setup(&[0, 4, 2]);
    queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        let mut heads = Vec::new();
        while let Some(chain) = batch.pop() {
            heads.push(chain.head());
            batch.complete(chain, 1);
        }
        assert_eq!((heads, log.take()), (vec![0, 4, 2], vec![Event::Fetch(vec![0, 4, 2])]));
        batch.publish();
    });
    let dropped = [Event::Drop, Event::Drop, Event::Drop];
    assert_eq!(log.take(), [&[Event::Release(3, 0)], &dropped[..]].concat());
    assert_eq!(ring.used(), [(0, 1), (4, 1), (2, 1)]);
}

#[test]
fn no_more_is_fetched_at_once_than_the_caller_wants() {
    for (chains, bytes, fetched) in [
        (2, 1 << 20, vec![vec![0, 4]]),
        (32, 200, vec![vec![0, 4], vec![2]]),
        (32, 199, vec![vec![0], vec![4], vec![2]]),
        (32, 99, vec![]),
        (0, 1 << 20, vec![]),
    ] {
        let Setup { mut queue, log, .. } = setup(&[0, 4, 2]);
        queue.batch(|batch| {
            batch.look_ahead(chains, bytes);
            for head in [0, 4, 2] {
                let chain = batch.pop().unwrap();
                assert_eq!(chain.head(), head);
                batch.complete(chain, 0);
            }
            assert!(batch.pop().is_none());
        });
        let mut events = log.take();
        events.retain(|event| matches!(event, Event::Fetch(_)));
        assert_eq!(events, fetched.into_iter().map(Event::Fetch).collect::<Vec<_>>());
    }
}

#[test]
fn what_was_fetched_and_not_taken_stays_available_and_is_let_go_of() {
    let Setup { mut queue, log, .. } = setup(&[0, 4, 2]);
    let taken = queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        batch.pop().unwrap()
    });
    assert_eq!(log.take(), [Event::Fetch(vec![0, 4, 2]), Event::Drop, Event::Drop]);
    assert_eq!((queue.state().next_avail, queue.in_flight()), (1, 1));
    queue.complete(taken, 0);
    queue.publish();
    assert_eq!(log.take(), [Event::Release(1, 0), Event::Drop]);
    assert_eq!(queue.pop().unwrap().head(), 4);
}

#[test]
fn a_chain_that_is_put_back_comes_before_those_that_were_fetched() {
    let Setup { mut ring, mut queue, .. } = setup(&[0, 4, 2]);
    queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        let first = batch.pop().unwrap();
        batch.put_back(first).unwrap();
        for head in [0, 4, 2] {
            let chain = batch.pop().unwrap();
            assert_eq!(chain.head(), head);
            batch.complete(chain, 0);
        }
        batch.publish();
    });
    assert_eq!(ring.used(), [(0, 0), (4, 0), (2, 0)]);
}

#[test]
fn a_malformed_chain_breaks_the_queue_at_its_turn_and_not_before() {
    let Setup { mut ring, mut queue, driver, log } = setup(&[0, 4, 2]);
    ring.desc(4, Desc(DATA, 4, NEXT, 9));
    queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        let chain = batch.pop().unwrap();
        assert!(!needs_reset(&driver));
        batch.complete(chain, 0);
        assert!(batch.pop().is_none());
        batch.publish();
    });
    assert!(needs_reset(&driver));
    assert_eq!(queue.fault(), Some(RingFault::DescriptorIndex(9)));
    assert!(log.take().contains(&Event::Fetch(vec![0])));
    assert_eq!(ring.used(), [(0, 0)]);
}

#[test]
fn a_head_that_is_offered_twice_breaks_the_queue_though_it_was_fetched_twice() {
    let Setup { mut queue, driver, .. } = setup(&[0, 4, 0]);
    queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        let (one, other) = (batch.pop().unwrap(), batch.pop().unwrap());
        assert!(batch.pop().is_none() && needs_reset(&driver));
        batch.complete(one, 0);
        batch.complete(other, 0);
    });
    assert_eq!(queue.fault(), Some(RingFault::HeadInFlight(0)));
}

#[test]
fn the_driver_finds_a_chain_as_it_was_when_it_was_fetched() {
    let Setup { ring, mut queue, .. } = setup(&[0, 4]);
    queue.batch(|batch| {
        batch.look_ahead(32, 1 << 20);
        let first = batch.pop().unwrap();
        ring.desc(4, Desc(DATA, 7, 0, 0));
        let second = batch.pop().unwrap();
        assert_eq!((second.readable_len(), second.writable_len()), (100, 4), "read once");
        batch.complete(first, 0);
        batch.complete(second, 0);
    });
}
