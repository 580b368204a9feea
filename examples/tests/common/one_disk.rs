//! A host with one guest (domain 1) and one disk of 1 MiB.

use std::{fs, path::PathBuf, sync::Arc};

use xen_ioreq::fake::FakeDomain;
use xen_virtio_backend::fake::{DeviceConfig, GuestKernel, Sharing, Window};
use xen_virtio_blk::settings::{DiskSettings, Settings};

use super::host::Host;

pub struct OneDisk {
    pub host: Host,
    pub domain: FakeDomain,
    pub kernel: Arc<GuestKernel>,
    pub disk: DeviceConfig,
    pub image: PathBuf,
}

/// Who the guest is.
pub const NAME: &str = "mail";
pub const UUID: &str = "4e6b7a5e-0000-4000-8000-000000000001";
/// Bytes of [`OneDisk`]'s image.
pub const DISK_LEN: u64 = 1 << 20;

impl OneDisk {
    pub fn new(sharing: Sharing) -> Self {
        Self::configured(sharing, |disk| disk)
    }

    pub fn configured(
        sharing: Sharing,
        configure: impl FnOnce(DeviceConfig) -> DeviceConfig,
    ) -> Self {
        Self::on(Host::new(), sharing, configure)
    }

    /// Served as the operator wants it.
    pub fn with_settings(sharing: Sharing, settings: DiskSettings) -> Self {
        Self::on(Host::with_settings(Settings::new(settings)), sharing, |disk| disk)
    }

    fn on(
        mut host: Host,
        sharing: Sharing,
        configure: impl FnOnce(DeviceConfig) -> DeviceConfig,
    ) -> Self {
        let domain = host.create_guest(1);
        host.name_guest(1, NAME, UUID);
        let kernel = GuestKernel::new(&domain, sharing);
        let image = host.image("disk.img", DISK_LEN);
        let disk = configure(DeviceConfig::disk(1, 0, &image).sharing(sharing));
        host.serve(&disk);
        Self { host, domain, kernel, disk, image }
    }

    pub fn window(&self) -> Window {
        self.host.window(&self.disk)
    }

    pub fn interrupts(&self) -> u64 {
        self.window().interrupts()
    }

    /// What the image holds now.
    pub fn contents(&self) -> Vec<u8> {
        fs::read(&self.image).unwrap()
    }
}
