//! Arbitrary guest memory as rings, tables and requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::request::run(data);
});
