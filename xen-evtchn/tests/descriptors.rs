//! A process that is short of file descriptors. The one test of its file, as the limit is the whole process's.
#![cfg(all(feature = "test-utils", not(miri)))] // Miri has no limits

use xen_evtchn::fake::FakeHub;

#[test]
fn a_fake_device_that_can_have_no_descriptor_does_not_open_with_emfile() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is an rlimit, and outlives the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let none = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: `none` is an rlimit, and outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &none) }, 0);
    let opened = FakeHub::new().open();
    // SAFETY: `limit` is an rlimit, and outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EMFILE));
}
