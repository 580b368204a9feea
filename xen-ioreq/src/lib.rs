//! Xen device-model operations and the IOREQ server.
