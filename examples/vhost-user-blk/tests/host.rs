//! A host that fails the program: a log that can't be written, limits, full disks.

mod common;

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    thread,
    time::Duration,
};

use common::{Backend, driver::*};
use vhost::VhostBackend;

/// A frontend finds everything as it should be.
fn serves(backend: &Backend) {
    let mut vmm = Vmm::connect(backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    assert_eq!(queue.request(&vmm, backend, (IN, 5), &[0; 512]), (0, vec![5; 512]));
}

#[test]
fn a_log_on_a_full_file_system_ends_nobody() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let backend = Backend::logging_to(full);
    serves(&backend);
    serves(&backend);
    assert!(backend.terminate(), "it should end well");
}

#[test]
fn a_log_whose_reader_is_gone_ends_nobody() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let backend = Backend::logging_to(writer);
    serves(&backend);
    serves(&backend);
    assert!(backend.terminate(), "it should end well");
}

/// The guest's own failures are logged, so its queue's thread is the one that would wait.
#[test]
fn a_log_that_nobody_reads_makes_no_queue_wait() {
    let (_reader, mut writer) = io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    for piece in [&[b'x'; 4096][..], b"x"] {
        while writer.write_all(piece).is_ok() {}
    }
    rustix::fs::fcntl_setfl(&writer, flags).unwrap();
    let backend = Backend::logging_to(writer);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    backend.truncate(0);
    for _ in 0..20 {
        assert_eq!(queue.request(&vmm, &backend, (IN, 8), &[0; 512]).0, 1);
    }
    backend.truncate(64 * 512);
    assert_eq!(queue.request(&vmm, &backend, (IN, 8), &[1; 512]), (0, vec![0; 512]));
    drop(vmm);
    assert!(backend.terminate(), "the stuck log keeps it from ending");
}

#[test]
fn a_flood_of_failed_requests_does_not_hide_a_broken_ring() {
    let backend = Backend::start(64, &[]);
    let mut vmm = Vmm::connect(&backend, BASIC);
    let mut queue = vmm.queue(0, 0, BASIC);
    backend.truncate(0);
    for _ in 0..50 {
        assert_eq!(queue.request(&vmm, &backend, (IN, 8), &[0; 512]).0, 1);
    }
    queue.offer(&vmm, 999);
    backend.logs("descriptor 999 is outside the descriptor table", 1);
    assert!(backend.log().matches("a request failed, and the guest got an I/O error").count() <= 8);
}

#[test]
fn a_write_beyond_the_file_size_limit_is_that_guests_error_alone() {
    for engine in ["io_uring", "sync"] {
        let options = ["--engine", engine];
        let backend = Backend::limited(64, &options, &["--fsize=16384"], None);
        let mut vmm = Vmm::connect(&backend, BASIC);
        let mut queue = vmm.queue(0, 0, BASIC);
        assert_eq!(queue.request(&vmm, &backend, (OUT, 8), &[0xaa; 512]).0, 0, "{engine}: near");
        assert_eq!(queue.request(&vmm, &backend, (OUT, 40), &[0xbb; 512]).0, 1, "{engine}: far");
        assert_eq!(queue.request(&vmm, &backend, (IN, 40), &[0; 512]), (0, vec![40; 512]));
        drop(vmm);
        serves(&backend);
    }
}

/// As many as a program has that waits for a frontend, and some: not enough for a session.
#[test]
fn without_descriptors_a_frontend_waits_until_there_are_some() {
    for files in 8..24 {
        let limit = format!("--nofile={files}:{files}");
        let Some(backend) = Backend::try_limited(64, &[], &[&limit]) else { continue };
        let held: Vec<_> = (0..8).map(|_| backend.connect()).collect();
        thread::sleep(Duration::from_millis(50));
        drop(held);
        assert!(backend.lives(), "{files} files:\n{}", backend.log());
    }
}

/// Whether it has enough for a connection: asked for its features (GET_FEATURES), it tells them.
fn answers(backend: &Backend) -> bool {
    let mut stream = backend.connect();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let asked = stream.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    asked.is_ok() && stream.read_exact(&mut [0; 20]).is_ok()
}

#[test]
fn a_message_whose_descriptors_find_no_room_is_answered_and_the_session_goes_on() {
    let mut refused = 0;
    for files in 8..24 {
        let limit = format!("--nofile={files}:{files}");
        let Some(backend) = Backend::try_limited(64, &[], &[&limit]) else { continue };
        if !answers(&backend) {
            continue;
        }
        let vmm = Vmm::unnegotiated(&backend);
        vmm.frontend.set_features(BASIC).unwrap();
        if vmm.share().is_err() {
            refused += 1;
            backend.logs("LimitNOFILE=", 1);
            assert_eq!(vmm.frontend.get_features().unwrap() & BASIC, BASIC, "{files} files");
        }
    }
    assert!(refused > 0, "with no number of files was there too little room");
}

#[test]
fn the_soft_limit_of_open_files_is_no_limit() {
    let backend = Backend::limited(64, &[], &["--nofile=10:1024"], None);
    serves(&backend);
}
