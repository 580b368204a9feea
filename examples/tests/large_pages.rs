//! A backend whose kernel has pages of 16 or 64 KiB, as some Arm kernels do.

mod common;

use common::{host::Host, virtio_driver::probe};
use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing};

#[test]
fn a_disk_is_served_by_a_kernel_with_large_pages_granted_or_mapped() {
    for kernel_page_size in [16384, 65536] {
        for sharing in [Sharing::Foreign, Sharing::Grant] {
            let mut host = Host::new();
            let domain =
                host.add_guest(FakeDomain::builder().kernel_page_size(kernel_page_size).build());
            let kernel = GuestKernel::new(&domain, sharing);
            let disk = DeviceConfig::disk(1, 0, host.image("disk.img", 1 << 20)).sharing(sharing);
            host.serve(&disk);
            let mut driver = probe(host.window(&disk), &kernel).unwrap();
            // Over several pages, which are mapped when they are granted.
            let written: Vec<_> = (0..32768_u32).map(|n| (n / 7) as u8).collect();
            driver.write_blocks(3, &written).unwrap();
            let mut read = vec![0; written.len()];
            driver.read_blocks(3, &mut read).unwrap();
            assert!(read == written, "{sharing:?} under pages of {kernel_page_size} bytes");
            let rings = domain.grants().live_mappings();
            assert_eq!(rings > 0, sharing == Sharing::Grant);
            drop(driver);
        }
    }
}
