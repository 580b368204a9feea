//! The ioctl numbers and layouts against Linux `include/uapi/xen/evtchn.h`, through the C compiler.
#![cfg(not(miri))]

use std::mem::{offset_of, size_of};

use c_headers::Headers;

type DomId = xen_evtchn::DomId;

#[path = "../src/sys.rs"]
mod sys;

const HEADERS: Headers = Headers {
    prelude: "
#include <stddef.h>
#include <sys/ioctl.h>
typedef uint16_t domid_t;
#include <xen/evtchn.h>
",
    packages: "linux-libc-dev and libc6-dev (Debian)",
};

#[test]
fn ioctls_match_the_header() {
    let compared = HEADERS.compare(&[
        ("IOCTL_EVTCHN_BIND_INTERDOMAIN", sys::BIND_INTERDOMAIN as usize),
        ("IOCTL_EVTCHN_BIND_UNBOUND_PORT", sys::BIND_UNBOUND_PORT as usize),
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
        ("sizeof(struct ioctl_evtchn_bind_unbound_port)", size_of::<sys::BindUnboundPort>()),
        (
            "offsetof(struct ioctl_evtchn_bind_unbound_port, remote_domain)",
            offset_of!(sys::BindUnboundPort, remote_domain),
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
    compared.unwrap_or_else(|error| panic!("{error}"));
}
