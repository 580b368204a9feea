//! One access to a register, of those that a running guest makes.

use std::hint::black_box;

use virtio_dev::WriteOutcome;
use virtio_mmio_dev::Register;

use crate::count::count;
use crate::device::transport;
use crate::guest::{Guest, Kind, Shape, write};
use crate::memory::{Plain, RAM};

pub(crate) fn access(register: Register) {
    let guest = Guest::new(Plain::new().all, RAM, Shape::new(Kind::Read, 1));
    let mut transport = transport(false);
    guest.start(&mut transport);
    match register {
        Register::InterruptStatus => count(1, || {
            let mut data = [0; 4];
            transport.read(black_box(register.offset()), &mut data);
            black_box(data);
        }),
        Register::QueueNotify => count(1, || {
            let outcome = write(&mut transport, black_box(register), black_box(0));
            assert_eq!(outcome, WriteOutcome::Notify(0));
        }),
        _ => count(1, || {
            let outcome = write(&mut transport, black_box(register), black_box(1));
            assert_eq!(outcome, WriteOutcome::Done);
        }),
    }
}
