//! A virtio block backend for Xen.

fn main() {}
