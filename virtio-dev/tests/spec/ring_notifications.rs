//! §2.7.7, §2.7.10 who is notified, and when.

use virtio_dev::vm_memory::{Bytes, GuestAddress};

use crate::common::{Ring, live_queue, ram};
use crate::offer;

#[test]
fn publish_with_nothing_staged_does_nothing() {
    let mem = &ram();
    let ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, false);
    mem.write_obj(0x7777_u16, GuestAddress(ring.at.used + 2)).unwrap();
    assert!(!queue.publish());
    assert_eq!(ring.used_idx(), 0x7777, "not even the index is stored");
    assert_eq!(driver.edges(), 0);
}

#[test]
fn a_batch_is_one_interrupt() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, false);
    (0..16).for_each(|head| offer(&mut ring, head));
    while let Some(chain) = queue.pop() {
        queue.complete(chain, 0);
    }
    assert!(queue.publish());
    assert_eq!(ring.used().len(), 16);
    assert_eq!(driver.edges(), 1);
    assert_eq!(driver.control.interrupt_status(), 1);
}

#[test]
fn s2_7_7_without_event_idx_the_avail_flags_decide_on_the_interrupt() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, driver) = live_queue(&ring, false);
    for (flags, wanted) in [(1, false), (0, true), (0xfffe, true), (0xffff, false)] {
        ring.set_avail_flags(flags);
        offer(&mut ring, 0);
        let chain = queue.pop().unwrap();
        queue.complete(chain, 0);
        assert_eq!(queue.publish(), wanted, "{flags:#x}");
    }
    assert_eq!(driver.edges(), 1, "the second was not acknowledged");
}

#[test]
fn s2_7_7_with_event_idx_used_event_decides_and_the_avail_flags_do_not() {
    let mem = &ram();
    let mut ring = Ring::new(mem, 16);
    let (mut queue, _driver) = live_queue(&ring, true);
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
    let (mut queue, _driver) = live_queue(&ring, true);
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
    let (mut queue, _driver) = live_queue(&ring, false);
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
