//! A xenstore client over the daemon's socket or /dev/xen/xenbus.
