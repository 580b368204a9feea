//! Chains that are put back, and queues that are given up.

mod common;

use virtio_dev::RingFault;
use virtio_dev::vm_memory::GuestMemory;

use common::{DATA, Desc, Ring, live_queue, needs_reset, new_queue, ram};

/// Two chains of one buffer each, available.
fn two_chains<M: GuestMemory>(ring: &mut Ring<'_, M>) {
    for head in [3, 5] {
        ring.desc(head, Desc(DATA, 16, 0, 0));
        ring.offer(head);
    }
}

#[test]
fn a_chain_that_is_put_back_is_popped_again() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 8);
    let (mut queue, driver) = live_queue(&ring, false);
    two_chains(&mut ring);
    queue.batch(|batch| {
        let first = batch.pop().unwrap();
        let second = batch.pop().unwrap();
        assert_eq!(second.head(), 5);
        batch.put_back(second).unwrap();
        batch.complete(first, 0);
        batch.publish();
    });
    assert_eq!((queue.state().next_avail, queue.in_flight()), (1, 0));
    let again = queue.pop().unwrap();
    assert_eq!(again.head(), 5);
    queue.complete(again, 0);
    queue.publish();
    assert_eq!(ring.used(), [(3, 0), (5, 0)]);
    assert!(queue.pop().is_none() && !needs_reset(&driver));
}

#[test]
fn only_the_chain_that_was_popped_last_is_put_back_and_once() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 8);
    let (mut queue, _) = live_queue(&ring, false);
    two_chains(&mut ring);
    queue.batch(|batch| {
        let first = batch.pop().unwrap();
        let second = batch.pop().unwrap();
        let first = batch.put_back(first).unwrap_err();
        batch.put_back(second).unwrap();
        let first = batch.put_back(first).unwrap_err();
        batch.complete(first, 0);
    });
    assert_eq!((queue.state().next_avail, queue.in_flight()), (1, 0));
}

#[test]
fn a_queue_that_is_given_up_asks_for_a_reset_and_pops_nothing() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 8);
    let (mut queue, driver) = live_queue(&ring, false);
    two_chains(&mut ring);
    let first = queue.pop().unwrap();
    queue.give_up();
    assert_eq!(queue.fault(), Some(RingFault::GivenUp));
    assert!(needs_reset(&driver) && queue.pop().is_none());
    queue.batch(|batch| batch.put_back(first).unwrap());
    assert!(queue.pop().is_none(), "nor what is put back");
}

#[test]
fn a_queue_that_is_dropped_in_a_panic_asks_for_a_reset() {
    let mem = &ram();
    let ring = Ring::new(mem, 8);
    let (queue, driver) = live_queue(&ring, false);
    drop(queue);
    assert!(!needs_reset(&driver), "a queue's end is none");
    let queue = new_queue(&ring.config(false), mem, driver.interrupt());
    let panics = std::panic::AssertUnwindSafe(move || {
        let _queue = queue;
        panic!("in the midst of its work");
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert!(needs_reset(&driver));
}
