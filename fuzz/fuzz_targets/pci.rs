//! Accesses of a hostile driver to a PCI function, and a worker serving its rings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    xen_virtio_fuzz::pci::run(data);
});
