//! The ioctls of `/dev/xen/evtchn` (Linux `include/uapi/xen/evtchn.h`).

use crate::DomId;

/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`; the local port is the return value.
pub(crate) const BIND_INTERDOMAIN: u32 = 0x0008_4501;
/// `IOCTL_EVTCHN_BIND_UNBOUND_PORT`; the local port is the return value.
pub(crate) const BIND_UNBOUND_PORT: u32 = 0x0004_4502;
/// `IOCTL_EVTCHN_UNBIND`.
pub(crate) const UNBIND: u32 = 0x0004_4503;
/// `IOCTL_EVTCHN_NOTIFY`.
pub(crate) const NOTIFY: u32 = 0x0004_4504;
/// `IOCTL_EVTCHN_RESET`; takes no argument.
pub(crate) const RESET: u32 = 0x0000_4505;
/// `IOCTL_EVTCHN_RESTRICT_DOMID`.
pub(crate) const RESTRICT_DOMID: u32 = 0x0002_4506;

/// `struct ioctl_evtchn_bind_interdomain`.
#[repr(C)]
pub(crate) struct BindInterdomain {
    pub(crate) remote_domain: u32,
    pub(crate) remote_port: u32,
}

/// `struct ioctl_evtchn_bind_unbound_port`.
#[repr(C)]
pub(crate) struct BindUnboundPort {
    pub(crate) remote_domain: u32,
}

/// `struct ioctl_evtchn_unbind`, and `struct ioctl_evtchn_notify`, which has the same shape.
#[repr(C)]
pub(crate) struct LocalPort {
    pub(crate) port: u32,
}

/// `struct ioctl_evtchn_restrict_domid`.
#[repr(C)]
pub(crate) struct RestrictDomid {
    pub(crate) domid: DomId,
}
