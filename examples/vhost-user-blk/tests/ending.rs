//! The end of the program: not under a guest, unless it is told twice or waits long enough.

mod common;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use common::{Backend, driver::*};

const REFUSED: Duration = Duration::from_millis(200);

#[test]
fn a_signal_ends_it_at_once_when_no_frontend_is_connected() {
    let backend = Backend::start(64, &[]);
    backend.logs("the frontend has disconnected", 1);
    assert!(backend.terminate(), "{}", backend.log());
    assert!(backend.has_left(), "the socket");
}

#[test]
fn the_first_signal_leaves_a_connected_frontend_its_disk_until_it_goes() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
    assert_eq!(backend.told(), "READY=1");
    backend.signal();
    backend.logs("told to stop", 1);
    assert_eq!(backend.told(), "STOPPING=1\nSTATUS=waiting for the frontend to disconnect");
    assert_eq!(queue.request(&vmm, &backend, (OUT, 3), &[0x33; 512]).0, 0);
    assert_eq!(queue.request(&vmm, &backend, (IN, 2), &[0; 512]).1, [2; 512]);
    assert!(backend.has_left(), "another program may take the socket's place");
    assert!(backend.lives());
    drop(vmm);
    assert!(backend.ends().is_some_and(|status| status.success()), "{}", backend.log());
    assert_eq!(backend.sector(3), [0x33; 512]);
}

#[test]
fn the_second_signal_ends_it_under_the_frontend_and_says_so() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
    backend.signal();
    backend.logs("told to stop", 1);
    assert!(backend.terminate(), "{}", backend.log());
    backend.logs("its guest has no disk until", 1);
}

#[test]
fn the_time_to_stop_is_bounded_where_it_is_told() {
    let backend = Backend::start(64, &["--stop-timeout", "0.3"]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
    let start = Instant::now();
    assert!(backend.terminate(), "{}", backend.log());
    assert!(start.elapsed() >= REFUSED, "not at once");
    backend.logs("its guest has no disk until", 1);
}

#[test]
fn half_a_message_does_not_keep_it_from_ending() {
    let backend = Backend::start(64, &["--stop-timeout", "0"]);
    let mut stream = backend.connect();
    stream.write_all(&[2, 0, 0, 0]).unwrap();
    backend.logs("a frontend is connected", 2);
    assert!(backend.terminate(), "{}", backend.log());
}
