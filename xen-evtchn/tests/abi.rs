//! The ioctl numbers and layouts against Linux `include/uapi/xen/evtchn.h`, through the C compiler.
#![cfg(not(miri))]

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

type DomId = xen_evtchn::DomId;

#[path = "../src/sys.rs"]
mod sys;

/// What every program here begins with.
const PRELUDE: &str = "
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
typedef uint16_t domid_t;
#include <xen/evtchn.h>
";

/// Compiles only if each C expression has our value.
fn check(checks: &[(&str, usize)]) {
    let mut program = String::from(PRELUDE);
    for (expression, ours) in checks {
        program +=
            &format!("_Static_assert(({expression}) == {ours}, \"{expression} is not {ours}\");\n");
    }
    let mut cc = Command::new("cc")
        .args(["-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler (Debian: gcc)");
    cc.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    assert!(
        cc.wait().unwrap().success(),
        "cc says why: a value differs, or there is no xen/evtchn.h (Debian: linux-libc-dev libc6-dev)"
    );
}

#[test]
fn ioctls_match_the_header() {
    check(&[
        ("IOCTL_EVTCHN_BIND_INTERDOMAIN", sys::BIND_INTERDOMAIN as usize),
        ("IOCTL_EVTCHN_UNBIND", sys::UNBIND as usize),
        ("IOCTL_EVTCHN_NOTIFY", sys::NOTIFY as usize),
        ("IOCTL_EVTCHN_RESET", sys::RESET as usize),
        ("IOCTL_EVTCHN_RESTRICT_DOMID", sys::RESTRICT_DOMID as usize),
        ("sizeof(struct ioctl_evtchn_bind_interdomain)", size_of::<sys::BindInterdomain>()),
        (
            "offsetof(struct ioctl_evtchn_bind_interdomain, remote_domain)",
            offset_of!(sys::BindInterdomain, remote_domain),
        ),
        (
            "offsetof(struct ioctl_evtchn_bind_interdomain, remote_port)",
            offset_of!(sys::BindInterdomain, remote_port),
        ),
        ("sizeof(struct ioctl_evtchn_unbind)", size_of::<sys::LocalPort>()),
        ("offsetof(struct ioctl_evtchn_unbind, port)", offset_of!(sys::LocalPort, port)),
        ("sizeof(struct ioctl_evtchn_notify)", size_of::<sys::LocalPort>()),
        ("offsetof(struct ioctl_evtchn_notify, port)", offset_of!(sys::LocalPort, port)),
        ("sizeof(struct ioctl_evtchn_restrict_domid)", size_of::<sys::RestrictDomid>()),
        (
            "offsetof(struct ioctl_evtchn_restrict_domid, domid)",
            offset_of!(sys::RestrictDomid, domid),
        ),
    ]);
}
