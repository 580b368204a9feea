//! When a live queue lets go of memory.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use virtio_dev::vm_memory::GuestAddressSpace;
use virtio_dev::{LiveQueue, feature};

use crate::common::{Driver, Ram, Ring, ram};
use crate::offer;

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
    let driver = Driver::live(feature::VERSION_1);
    let mut ring = Ring::new(mem, 16);
    let mut queue =
        LiveQueue::new(&ring.config(false), &rings, requests, driver.interrupt()).unwrap();
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
    is_send::<virtio_dev::Chain<Shared>>();
}
