//! io_uring in the sandbox.

mod common;

use std::io::Write;

use common::{Outcome, Trial, refused};
use io_uring::IoUring;
use tempfile::NamedTempFile;
use xen_virtio_sandbox::{Layer, RingRestrictions, State};

/// A file of some text, if this machine has rings.
fn file() -> Option<(NamedTempFile, String)> {
    if let Err(error) = IoUring::new(8) {
        eprintln!("SKIPPED: no io_uring: {error}");
        return None;
    }
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(b"image").unwrap();
    let path = file.path().display().to_string();
    Some((file, path))
}

#[test]
fn a_ring_created_before_can_be_given_a_file_and_used() {
    let Some((_file, path)) = file() else { return };
    let (outcome, log) = Trial::new("all", &format!("ring-read {path}")).run();
    assert_eq!(outcome, Outcome::Done("image".into()), "{log}");
}

#[test]
fn only_a_uring_queue_thread_may_use_a_ring_and_change_its_file() {
    let Some((_file, path)) = file() else { return };
    let run = |kind, action: &str| Trial::of_thread(kind, "all", &format!("{action} {path}")).run();
    let (outcome, log) = run("uring-queue", "ring-read");
    assert_eq!(outcome, Outcome::Done("image".into()), "{log}");
    for action in ["ring-read", "ring-file", "ring-ready"] {
        assert!(run("sync-queue", action).0.is_refused(), "{action}");
    }
}

#[test]
fn a_ring_cannot_be_enabled_in_the_sandbox() {
    let Some((_file, path)) = file() else { return };
    refused(&[], &format!("ring-enable {path}"), &[Layer::Seccomp], |trial| trial);
}

#[test]
fn rings_cannot_be_created() {
    if file().is_some() {
        refused(&[], "ring-setup", &[Layer::Seccomp], |trial| trial);
    }
}

#[test]
fn a_restricted_ring_only_allows_its_operations_on_registered_files() {
    let Some((_file, path)) = file() else { return };
    for action in ["ring-descriptor", "ring-open", "ring-link", "ring-buffers", "ring-table"] {
        let attempt = format!("{action} {path}");
        let unrestricted = Trial::new("none", &format!("{attempt} unrestricted")).outcome();
        assert!(matches!(unrestricted, Outcome::Done(_)), "{action}: {unrestricted:?}");
        let (restricted, log) = Trial::new("none", &attempt).run();
        assert!(restricted.is_refused(), "{action}: {restricted:?}\n{log}");
    }
}

#[test]
fn an_unrestricted_ring_bypasses_seccomp() {
    let Some((_file, path)) = file() else { return };
    let opened = Trial::new("seccomp", &format!("ring-open {path} unrestricted")).outcome();
    assert!(matches!(opened, Outcome::Done(_)), "{opened:?}");
    assert!(Trial::new("seccomp", &format!("ring-open {path}")).outcome().is_refused());
    // Other layers apply to rings as well.
    let opened = Trial::new("all", &format!("ring-open {path} unrestricted")).outcome();
    assert!(opened.is_refused(), "{opened:?}");
}

#[test]
fn restricting_an_enabled_or_restricted_ring_is_an_error() {
    let Some(_) = file() else { return };
    let ring = IoUring::new(8).unwrap();
    let error = RingRestrictions::new(&[]).register(&ring).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    let ring: IoUring = IoUring::builder().setup_r_disabled().build(8).unwrap();
    assert_eq!(RingRestrictions::new(&[]).register(&ring).unwrap(), State::On);
    assert!(RingRestrictions::new(&[]).register(&ring).is_err(), "a ring is restricted once");
}
