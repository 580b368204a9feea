//! §4.2.2.2 the interrupt status.

use virtio_mmio_dev::Register;

use crate::V1;
use crate::common::Window;

#[test]
fn s4_2_2_2_interrupt_bits_are_real_events_held_until_acknowledged_one_by_one() {
    let mut window = Window::live(V1);
    assert_eq!(window.read(Register::InterruptStatus), 0, "no event, no bit");
    let interrupt = window.transport.interrupt(0);
    interrupt.used_buffer();
    interrupt.config_change();
    for _ in 0..2 {
        assert_eq!(window.read(Register::InterruptStatus), 3, "reading clears nothing");
    }
    window.set(Register::InterruptAck, 2);
    assert_eq!(window.read(Register::InterruptStatus), 1);
    window.set(Register::InterruptAck, 0xffff_fffe);
    assert_eq!(window.read(Register::InterruptStatus), 1);
    window.set(Register::InterruptAck, 1);
    assert_eq!(window.read(Register::InterruptStatus), 0);
}

#[test]
fn s4_2_2_2_one_edge_for_each_bit_newly_set() {
    let mut window = Window::live(V1);
    let interrupt = window.transport.interrupt(0);
    interrupt.used_buffer();
    interrupt.used_buffer();
    assert_eq!((window.edges(), interrupt.suppressed()), (1, 1));
    interrupt.config_change();
    assert_eq!(window.edges(), 2);
    window.set(Register::InterruptAck, 1);
    interrupt.used_buffer();
    assert_eq!((window.edges(), interrupt.raised()), (3, 3));
}

#[test]
fn s4_2_2_2_interrupt_status_is_atomic_between_workers_and_the_driver() {
    // Each event either raises the line or finds its bit set, and the acknowledgements of one bit
    // never take the other away.
    const EVENTS: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let mut window = Window::live(V1);
    let interrupt = window.transport.interrupt(0);
    std::thread::scope(|scope| {
        let workers = [
            scope.spawn({
                let interrupt = interrupt.clone();
                move || (0..EVENTS).for_each(|_| interrupt.used_buffer())
            }),
            scope.spawn({
                let interrupt = interrupt.clone();
                move || (0..EVENTS).for_each(|_| interrupt.config_change())
            }),
        ];
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let status = window.read(Register::InterruptStatus);
            window.set(Register::InterruptAck, status & 1);
        }
    });
    assert_eq!(interrupt.raised() + interrupt.suppressed(), 2 * EVENTS);
    assert_eq!(window.edges(), interrupt.raised());
    assert_eq!(window.read(Register::InterruptStatus) & 2, 2, "never acknowledged");
    assert_eq!(u64::from(window.read(Register::ConfigGeneration)), EVENTS);
}
