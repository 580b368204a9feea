//! A backend whose kernel has pages of 16 or 64 KiB, as some Arm kernels do.

mod common;

use common::{
    guest_kernel::{GuestKernel, Sharing},
    host::{Disk, Host},
    virtio_driver::probe,
};

#[test]
fn a_disk_is_served_by_a_kernel_with_large_pages_granted_or_mapped() {
    for kernel_page_size in [16384, 65536] {
        for sharing in [Sharing::Foreign, Sharing::Grant] {
            let mut host = Host::new();
            let domain = host.create_guest_under(1, kernel_page_size);
            let kernel = GuestKernel::new(&domain, sharing);
            let disk = Disk::new(1, 0, &host.image("disk.img", 1 << 20)).sharing(sharing);
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
