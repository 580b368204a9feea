//! Register accesses of a hostile driver, and a worker serving its rings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::mmio::run(data);
});
