//! What must work in the sandbox.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Outcome, Trial, has, is_root};
use tempfile::NamedTempFile;
use xen_virtio_sandbox::Layer;

fn image() -> (NamedTempFile, PathBuf) {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(8192).unwrap();
    let path = image.path().to_owned();
    (image, path)
}

/// Asserts that an action succeeds with all layers on.
fn works(action: &str, says: &str) {
    let (outcome, log) = Trial::new("all", action).run();
    assert_eq!(outcome, Outcome::Done(says.into()), "{action}\n{log}");
}

#[test]
fn an_open_image_can_be_read_and_written() {
    if !is_root() {
        return;
    }
    for kind in ["guest", "sync-queue", "uring-queue"] {
        let (_image, path) = image();
        let action = format!("image {}", path.display());
        let (outcome, log) = Trial::of_thread(kind, "all", &action).run();
        assert_eq!(outcome, Outcome::Done("written by  parts 16384 16384".into()), "{kind}\n{log}");
        let content = fs::read(&path).unwrap();
        assert_eq!(&content[512..519], b"written");
        assert_eq!(&content[1024..1032], b"by parts");
        assert!(!log.contains("not allowed"), "{log}");
    }
}

#[test]
fn threads_can_start_synchronize_and_exit() {
    if is_root() {
        works("threads 20", "20");
    }
}

#[test]
fn memory_can_be_allocated_reallocated_and_freed() {
    if !is_root() {
        return;
    }
    let (outcome, log) = Trial::new("all", "memory ").run();
    assert_eq!(outcome, Outcome::Done("8080".into()), "{log}");
    // Nor does the allocator look for what the sandbox doesn't have.
    assert!(!log.contains("not allowed"), "{log}");
}

#[test]
fn connected_sockets_and_eventfds_work() {
    if is_root() {
        works("sockets", "question 8");
        works("events", "1 1");
        works("pin", "pinned");
    }
}

#[test]
fn every_thread_may_wait_for_descriptors_and_ask_whether_one_is_a_terminal() {
    if !is_root() {
        return;
    }
    for kind in ["guest", "sync-queue", "uring-queue"] {
        let (outcome, log) = Trial::of_thread(kind, "all", "watch").run();
        assert_eq!(outcome, Outcome::Done("1".into()), "{kind}\n{log}");
        let (outcome, log) = Trial::of_thread(kind, "all", "terminal").run();
        assert_eq!(outcome, Outcome::Done("false".into()), "{kind}\n{log}");
    }
}

#[test]
fn a_limit_may_be_asked_for_and_not_changed() {
    if !is_root() || !has(Layer::Seccomp) {
        return;
    }
    for kind in ["guest", "sync-queue", "uring-queue", "log"] {
        let asked = Trial::of_thread(kind, "all", "limit 0").env("TRIAL_FILES", "100").outcome();
        assert_eq!(asked, Outcome::Done("100".into()), "{kind}");
        assert!(Trial::of_thread(kind, "all", "limit 1").outcome().is_refused(), "{kind}");
    }
}

#[test]
fn a_panic_prints_its_message_and_can_be_caught() {
    if !is_root() {
        return;
    }
    for backtrace in ["0", "1"] {
        let (outcome, log) = Trial::new("all", "panic").env("RUST_BACKTRACE", backtrace).run();
        assert_eq!(outcome, Outcome::Done("true".into()), "{log}");
        assert!(log.contains("panicked at") && log.contains("a panic in a thread"), "{log}");
    }
}

#[test]
fn abort_terminates_by_sigabrt() {
    if is_root() {
        assert_eq!(Trial::new("all", "abort").outcome(), Outcome::Signal(libc::SIGABRT));
    }
}

#[test]
fn a_log_thread_may_write_the_log_but_not_an_image() {
    if !is_root() || !has(Layer::Seccomp) {
        return;
    }
    let (outcome, log) = Trial::of_thread("log", "all", "write").run();
    assert_eq!(outcome, Outcome::Done("18".into()), "{log}");
    assert!(log.contains("a line of the log"), "{log}");
    let (_image, path) = image();
    let action = format!("image {}", path.display());
    let unconfined = Trial::of_thread("log", "none", &action).outcome();
    assert!(matches!(unconfined, Outcome::Done(_)), "{unconfined:?}");
    assert!(Trial::of_thread("log", "all", &action).outcome().is_refused());
}

#[test]
fn a_queue_thread_may_not_start_threads_or_create_eventfds() {
    if !is_root() || !has(Layer::Seccomp) {
        return;
    }
    for kind in ["sync-queue", "uring-queue", "log"] {
        for action in ["threads 1", "events"] {
            let unconfined = Trial::of_thread(kind, "none", action).outcome();
            assert!(matches!(unconfined, Outcome::Done(_)), "{kind} {action}: {unconfined:?}");
            assert!(
                Trial::of_thread(kind, "all", action).outcome().is_refused(),
                "{kind} {action}"
            );
        }
    }
}
