//! Arbitrary messages from a vhost-user frontend, over arbitrary memory of its guest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::vhost_user::run(data);
});
