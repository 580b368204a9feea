//! Arbitrary qcow2 images, and requests to the disks that they are.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::qcow2::run(data);
});
