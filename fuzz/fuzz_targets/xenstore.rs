//! Arbitrary bytes from xenstored, and arbitrary contents of a device's nodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::xenstore::run(data);
});
