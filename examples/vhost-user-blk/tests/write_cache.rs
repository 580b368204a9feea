//! Whether writes go through is what the guest was told, in whatever order the frontend speaks.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{Backend, driver::*};
use vhost::{
    VhostBackend,
    vhost_user::{VhostUserFrontend, message::VhostUserConfigFlags},
};

const CONFIG_WCE: u64 = 1 << 11;
const FEATURES: u64 = BASIC | CONFIG_WCE;
/// `writeback` in the configuration space.
const FIELD: u32 = 32;

fn switch(vmm: &mut Vmm, on: bool) {
    let flags = VhostUserConfigFlags::WRITABLE;
    vmm.frontend.set_config(FIELD, flags, &[on.into()]).unwrap();
}

/// What the frontend is told, and how the device writes: the program logs each change.
#[track_caller]
fn is_cached(backend: &Backend, vmm: &mut Vmm, told: bool, cached: bool) {
    assert_eq!(vmm.config(FIELD, 1), [told.into()], "what the guest is told\n{}", backend.log());
    writes(backend, cached);
}

/// How the device writes from the last negotiation or switch on.
#[track_caller]
fn writes(backend: &Backend, cached: bool) {
    let text = format!("write_cache={cached}");
    let start = Instant::now();
    loop {
        let log = backend.log();
        let last = log.lines().rfind(|line| line.contains("write_cache="));
        if last.is_some_and(|line| line.ends_with(&text)) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(2), "not {text}:\n{log}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn backend() -> Backend {
    Backend::start(64, &[])
}

#[test]
fn the_cache_that_one_frontend_switched_off_is_on_for_the_next() {
    let backend = backend();
    let mut vmm = Vmm::connect(&backend, FEATURES);
    is_cached(&backend, &mut vmm, true, true);
    switch(&mut vmm, false);
    is_cached(&backend, &mut vmm, false, false);
    drop(vmm);
    let mut vmm = Vmm::unnegotiated(&backend);
    assert_eq!(vmm.config(FIELD, 1), [1], "left over from the one before");
    vmm.frontend.set_features(FEATURES).unwrap();
    is_cached(&backend, &mut vmm, true, true);
}

#[test]
fn a_switch_before_the_features_holds_after_them() {
    let backend = backend();
    let mut vmm = Vmm::unnegotiated(&backend);
    assert_eq!(vmm.config(FIELD, 1), [1]);
    switch(&mut vmm, false);
    assert_eq!(vmm.config(FIELD, 1), [0], "acknowledged and dropped");
    vmm.frontend.set_features(FEATURES).unwrap();
    writes(&backend, false);
    is_cached(&backend, &mut vmm, false, false);
}

/// QEMU keeps the configuration over its guest's reset, and doesn't ask for it again.
#[test]
fn a_reset_of_the_device_turns_no_cache_on_unseen() {
    let backend = backend();
    let mut vmm = Vmm::connect(&backend, FEATURES);
    is_cached(&backend, &mut vmm, true, true);
    switch(&mut vmm, false);
    vmm.frontend.reset_device().unwrap();
    vmm.frontend.set_features(FEATURES).unwrap();
    backend.logs("the driver's features", 2);
    writes(&backend, false);
    is_cached(&backend, &mut vmm, false, false);
    switch(&mut vmm, true);
    is_cached(&backend, &mut vmm, true, true);
}

/// It is QEMU that reconnects: its guest knows what an earlier connection was told.
#[test]
fn a_frontend_that_reconnects_without_asking_gets_what_it_was_told_before() {
    let backend = backend();
    let mut vmm = Vmm::connect(&backend, FEATURES);
    is_cached(&backend, &mut vmm, true, true);
    for (connections, on) in [(2, false), (3, true)] {
        switch(&mut vmm, on);
        writes(&backend, on);
        drop(vmm);
        vmm = Vmm::connect(&backend, FEATURES);
        backend.logs("the driver's features", connections);
        writes(&backend, on);
    }
}

#[test]
fn a_guest_that_may_believe_that_there_is_no_cache_gets_none() {
    let backend = backend();
    // Nobody has asked since the program began, so another one may have told the guest.
    let mut vmm = Vmm::connect(&backend, FEATURES);
    writes(&backend, false);
    // Now it is told.
    is_cached(&backend, &mut vmm, true, true);
}

#[test]
fn s5_2_5_2_a_guest_that_cannot_flush_has_no_cache_until_it_switches_it_on() {
    let backend = backend();
    let mut vmm = Vmm::unnegotiated(&backend);
    assert_eq!(vmm.config(FIELD, 1), [1]);
    vmm.frontend.set_features(FEATURES & !(1 << 9)).unwrap();
    writes(&backend, false);
    switch(&mut vmm, true);
    writes(&backend, true);
}

#[test]
fn a_guest_that_cannot_switch_the_cache_has_one_if_it_can_flush() {
    let backend = backend();
    let vmm = Vmm::connect(&backend, BASIC);
    writes(&backend, true);
    drop(vmm);
    let vmm = Vmm::connect(&backend, BASIC & !(1 << 9));
    writes(&backend, false);
    drop(vmm);
}
