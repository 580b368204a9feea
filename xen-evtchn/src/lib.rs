//! Xen event channels from userspace, over /dev/xen/evtchn.
