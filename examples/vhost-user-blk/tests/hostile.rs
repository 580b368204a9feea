//! Frontends and guests that do everything wrong: the program says so, and serves the next one.

mod common;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use common::{Backend, driver::*};
use vhost::{VhostBackend, vhost_user::VhostUserFrontend};
use vm_memory::{Bytes, GuestAddress};

/// A frontend after the others finds everything as it should be.
fn serves(backend: &Backend) {
    let mut vmm = Vmm::connect(backend, BASIC | EVENT_IDX);
    let mut queue = vmm.queue(0, 0, BASIC | EVENT_IDX);
    assert_eq!(queue.request(&vmm, backend, (IN, 5), &[0; 512]), (0, vec![5; 512]));
}

#[test]
fn nonsense_ends_the_session_and_not_the_program() {
    let backend = Backend::start(64, &[]);
    let refused = |bytes: &[u8], count| {
        let mut stream = backend.connect();
        stream.write_all(bytes).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "an answer to nonsense");
        backend.logs("the connection to the frontend is closed", count);
    };
    refused(&[0xff; 64], 1);
    // A request of version 1 that no one knows, and one whose body is longer than any.
    refused(&[99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], 2);
    refused(&[2, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f], 3);
    serves(&backend);
}

#[test]
fn a_frontend_that_breaks_off_is_told_from_one_that_leaves() {
    let backend = Backend::start(64, &[]);
    drop(backend.connect());
    backend.logs("the frontend has disconnected", 2);
    assert!(
        !backend.log().contains("the connection to the frontend is closed"),
        "{}",
        backend.log()
    );
    // SET_FEATURES without its body.
    let mut stream: UnixStream = backend.connect();
    stream.write_all(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]).unwrap();
    drop(stream);
    backend.logs("the connection to the frontend is closed", 1);
    serves(&backend);
}

#[test]
fn a_ring_outside_the_memory_is_refused_and_the_session_goes_on() {
    let features = BASIC | 1 << 12;
    let backend = Backend::start(64, &["--queues", "2"]);
    let mut vmm = Vmm::connect(&backend, features);
    let mut other = vmm.queue(1, 0, features);
    for part in 0..3 {
        let queue = vmm.queue(0, 0, features);
        vmm.frontend.get_vring_base(0).unwrap();
        let mut addresses = queue.addresses(&vmm);
        let outside = vmm.user(BASE) + LEN as u64;
        match part {
            0 => addresses.desc_table_addr = outside,
            1 => addresses.avail_ring_addr = 0x1000,
            _ => addresses.used_ring_addr = !0xff,
        }
        vmm.frontend.set_vring_addr(0, &addresses).unwrap();
        assert!(queue.restart(&vmm).is_err(), "part {part}");
        assert!(readable(&queue.err), "the error descriptor, part {part}");
        backend.logs("is not in memory that it shares", part + 1);
        assert_eq!(other.request(&vmm, &backend, (IN, 2), &[0; 512]).1, [2; 512]);
    }
    vmm.clear();
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512]);
    assert_eq!(
        backend.log().matches("the connection to the frontend is closed").count(),
        0,
        "{}",
        backend.log()
    );
}

#[test]
fn a_misaligned_ring_is_refused_and_the_session_goes_on() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    for part in 0..3 {
        let queue = vmm.queue(0, 0, BASIC);
        vmm.frontend.get_vring_base(0).unwrap();
        let mut addresses = queue.addresses(&vmm);
        match part {
            0 => addresses.desc_table_addr += 8,
            1 => addresses.avail_ring_addr += 1,
            _ => addresses.used_ring_addr += 2,
        }
        vmm.frontend.set_vring_addr(0, &addresses).unwrap();
        queue.restart(&vmm).unwrap();
        assert!(readable(&queue.err), "the error descriptor, part {part}");
        backend.logs("is not aligned to", part + 1);
    }
    vmm.clear();
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512]);
}

/// QEMU passes on what the guest's driver took of QEMU's own features, as ANY_LAYOUT (27).
#[test]
fn features_that_were_not_offered_are_left_out() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    vmm.frontend.set_features(BASIC | 1 << 27 | 1 << 63).unwrap();
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512]);
}

#[test]
fn a_ring_that_runs_out_of_the_memory_stops_that_queue_alone() {
    let features = BASIC | 1 << 12;
    let backend = Backend::start(64, &["--queues", "2"]);
    let mut vmm = Vmm::connect(&backend, features);
    let first = vmm.queue(0, 0, features);
    let mut second = vmm.queue(1, 0, features);
    vmm.frontend.get_vring_base(0).unwrap();
    let mut addresses = first.addresses(&vmm);
    addresses.used_ring_addr = vmm.user(BASE) + LEN as u64 - 8;
    vmm.frontend.set_vring_addr(0, &addresses).unwrap();
    first.restart(&vmm).unwrap();
    assert!(readable(&first.err), "the error descriptor");
    backend.logs("used ring at 0x400ffff8 of 132 bytes is not accessible", 1);
    assert_eq!(second.request(&vmm, &backend, (IN, 2), &[0; 512]).1, [2; 512]);

    // The guest resets its device, and does it right.
    vmm.frontend.get_vring_base(0).unwrap();
    let mut first = vmm.queue(0, 0, features);
    assert_eq!(first.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512]);
}

#[test]
fn a_broken_ring_is_told_and_can_be_set_up_anew() {
    let features = BASIC | EVENT_IDX;
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, features);
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
    queue.offer(&vmm, 999);
    assert!((0..100).any(|_| readable(&queue.err)), "{}", backend.log());
    backend.logs("descriptor 999 is outside the descriptor table", 1);
    assert_eq!(vmm.frontend.get_vring_base(0).unwrap(), 1);
    vmm.memory.write_slice(&[0; 0x3000], GuestAddress(queue.rings)).unwrap();
    let mut queue = vmm.queue(0, 0, features);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
}

#[test]
fn a_message_that_fails_is_answered_and_the_session_goes_on() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut refusals = 0;
    let mut refused = |text: &str, ask: &dyn Fn(&mut Vmm) -> vhost::Result<()>| {
        assert!(ask(&mut vmm).is_err(), "{text}");
        refusals += 1;
        backend.logs("refused", refusals);
        assert!(backend.log().contains(text), "no {text:?} in\n{}", backend.log());
        vmm.frontend.get_vring_base(0).unwrap();
        vmm.share().unwrap();
        vmm.clear();
        let mut queue = vmm.queue(0, 0, BASIC);
        assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).1, [1; 512], "{text}");
    };
    refused("there is no queue 1: the device has 1", &|vmm| vmm.frontend.set_vring_num(1, 16));
    refused("0 descriptors", &|vmm| vmm.frontend.set_vring_num(0, 0));
    refused("257 descriptors", &|vmm| vmm.frontend.set_vring_num(0, 257));
    refused("VHOST_USER_SET_OWNER was sent before", &|vmm| vmm.frontend.set_owner());
    refused("longer than the file", &|vmm| {
        let mut regions = vmm.regions();
        regions[0].memory_size += 4096;
        vmm.frontend.set_mem_table(&regions).map(drop)
    });
    refused("the region at guest address 0xfffffffffffff000", &|vmm| {
        let mut region = vmm.regions()[0];
        region.guest_phys_addr = !0xfff;
        VhostUserFrontend::remove_mem_region(&mut vmm.frontend, &region)
    });
    assert_eq!(vmm.frontend.get_vring_base(1).unwrap(), 0, "a question is answered");
    assert!(
        !backend.log().contains("the connection to the frontend is closed"),
        "{}",
        backend.log()
    );
}

#[test]
fn a_queue_is_not_served_with_what_was_there_before_a_refused_setting() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, &backend, (IN, 1), &[0; 512]).0, 0);
    vmm.frontend.set_vring_num(0, 257).unwrap_err();
    assert!(readable(&queue.err), "the error descriptor");
    queue.submit(&vmm, IN, 2, &[0; 512]);
    queue.restart(&vmm).unwrap();
    // The first request's interrupt may come only now; what is wrong has a tenth of a second.
    while readable(&queue.call) {}
    assert_eq!(vmm.frontend.get_vring_base(0).unwrap(), 1);
    assert_eq!(queue.used_index(&vmm), 1, "served all the same");
    queue.set_up(&mut vmm, 1).unwrap();
    queue.wait(&vmm, &backend);
}

#[test]
fn a_second_program_gets_neither_the_socket_nor_the_image() {
    let backend = Backend::start(64, &[]);
    let second = |socket: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vhost-user-blk"))
            .args(["--socket", socket, "--image", "image", "--read-only"])
            .current_dir(backend.dir.path())
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(second("other").contains("in use by another disk or process"));
    serves(&backend);
}
