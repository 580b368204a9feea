//! Numbers, sizes and offsets against `xen/include/public/io/xs_wire.h`, through the C compiler.
#![cfg(not(miri))]

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

use xen_store::{ABS_PATH_MAX, Op, PAYLOAD_MAX, REL_PATH_MAX};

#[path = "../src/sys.rs"]
mod sys;

/// Evaluates C integer expressions against the header.
fn c_values(expressions: &[&str]) -> Vec<usize> {
    let mut program = String::from(
        "#include <errno.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n\
         #include <xen/io/xs_wire.h>\nint main(void) {\n",
    );
    for expression in expressions {
        program += &format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n");
    }
    program += "return 0;\n}\n";
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("abi");
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
        "cc found no Xen headers (Debian: libxen-dev linux-libc-dev libc6-dev)"
    );
    let output = Command::new(&binary).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn the_wire_matches_the_header() {
    let checks = [
        ("XS_DIRECTORY", Op::Directory as usize),
        ("XS_READ", Op::Read as usize),
        ("XS_GET_PERMS", Op::GetPerms as usize),
        ("XS_WATCH", Op::Watch as usize),
        ("XS_UNWATCH", Op::Unwatch as usize),
        ("XS_TRANSACTION_START", Op::TransactionStart as usize),
        ("XS_TRANSACTION_END", Op::TransactionEnd as usize),
        ("XS_GET_DOMAIN_PATH", Op::GetDomainPath as usize),
        ("XS_WRITE", Op::Write as usize),
        ("XS_MKDIR", Op::Mkdir as usize),
        ("XS_RM", Op::Rm as usize),
        ("XS_SET_PERMS", Op::SetPerms as usize),
        ("XS_WATCH_EVENT", Op::WatchEvent as usize),
        ("XS_DIRECTORY_PART", Op::DirectoryPart as usize),
        ("XS_ERROR", sys::ERROR as usize),
        ("sizeof(struct xsd_sockmsg)", size_of::<sys::Header>()),
        ("offsetof(struct xsd_sockmsg, type)", offset_of!(sys::Header, msg_type)),
        ("offsetof(struct xsd_sockmsg, req_id)", offset_of!(sys::Header, req_id)),
        ("offsetof(struct xsd_sockmsg, tx_id)", offset_of!(sys::Header, tx_id)),
        ("offsetof(struct xsd_sockmsg, len)", offset_of!(sys::Header, len)),
        ("XENSTORE_PAYLOAD_MAX", PAYLOAD_MAX),
        ("XENSTORE_ABS_PATH_MAX", ABS_PATH_MAX),
        ("XENSTORE_REL_PATH_MAX", REL_PATH_MAX),
        // The order of the strings in a watch event.
        ("XS_WATCH_PATH", 0),
        ("XS_WATCH_TOKEN", 1),
    ];
    let expressions: Vec<&str> = checks.iter().map(|(expression, _)| *expression).collect();
    let values = c_values(&expressions);
    assert_eq!(values.len(), checks.len());
    for ((expression, ours), theirs) in checks.iter().zip(values) {
        assert_eq!(*ours, theirs, "{expression}");
    }
}
