//! Numbers, sizes and offsets against `xen/include/public/io/xs_wire.h`, through the C compiler.
#![cfg(not(miri))]

use std::mem::{offset_of, size_of};

use c_headers::Headers;
use xen_store::{ABS_PATH_MAX, Op, PAYLOAD_MAX, REL_PATH_MAX};

#[path = "../src/sys.rs"]
mod sys;

const HEADERS: Headers = Headers {
    prelude: "
#include <errno.h>
#include <stddef.h>
#include <xen/io/xs_wire.h>
",
    packages: "libxen-dev and libc6-dev (Debian)",
};

#[test]
fn the_wire_matches_the_header() {
    let compared = HEADERS.compare(&[
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
    ]);
    compared.unwrap_or_else(|error| panic!("{error}"));
}
