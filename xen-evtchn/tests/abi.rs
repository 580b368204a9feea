//! The ioctl numbers and layouts against Linux `include/uapi/xen/evtchn.h`, through the C compiler.
#![cfg(not(miri))]

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

type DomId = xen_evtchn::DomId;

#[path = "../src/sys.rs"]
mod sys;

/// Evaluates C integer expressions against the header.
fn c_values(expressions: &[&str]) -> Vec<u64> {
    let mut program = String::from(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n\
         typedef uint16_t domid_t;\n#include <xen/evtchn.h>\nint main(void) {\n",
    );
    for expression in expressions {
        program += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    program += "return 0;\n}\n";
    let binary = std::env::temp_dir().join(format!("xen-evtchn-abi-{}", std::process::id()));
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-", "-o"])
        .arg(&binary)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler (Debian: gcc)");
    cc.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    let status = cc.wait().unwrap();
    assert!(
        status.success(),
        "cc found no xen/evtchn.h (Debian: linux-libc-dev libxen-dev libc6-dev)"
    );
    let output = Command::new(&binary).output().unwrap();
    std::fs::remove_file(&binary).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn ioctls_match_the_header() {
    let checks = [
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
    ];
    let expressions: Vec<&str> = checks.iter().map(|(expression, _)| *expression).collect();
    let values = c_values(&expressions);
    assert_eq!(values.len(), checks.len());
    for ((expression, ours), theirs) in checks.iter().zip(values) {
        assert_eq!(*ours as u64, theirs, "{expression}");
    }
}
