//! An entropy backend (virtio 1.2 §5.4) for guests on Xen: the worked example of the guide
//! `docs/write-your-own-backend.md`, which walks through it from top to bottom.
//!
//! `virtio-rng`, started in dom0, serves each guest with this line in its `xl.cfg`:
//!
//! ```text
//! virtio = [ "backend=0,type=virtio,device4,transport=mmio,grant_usage=0" ]
//! ```

use std::{os::fd::OwnedFd, process::ExitCode};

use rustix::rand::{GetRandomFlags, getrandom};
use virtio_dev::{Chain, VirtioDevice, vm_memory::GuestAddressSpace};
use xen_virtio_backend::{
    Inline, InlineDevices,
    node::{DeviceId, DeviceType},
};

/// One guest's device, and how many bytes the guest got.
pub(crate) struct Entropy(u64);

impl VirtioDevice for Entropy {
    fn device_type(&self) -> u32 {
        Self::DEVICE_TYPE.0
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[16]
    }
}

impl Inline for Entropy {
    const NAME: &'static str = "virtio-rng";
    const DEVICE_TYPE: DeviceType = DeviceType(4);

    fn build(_: Vec<OwnedFd>) -> Self {
        Self(0)
    }
    /// Fills what the request has room for, or less (§5.4.6.1): the generator gives up to 256 bytes at once.
    fn request<M: GuestAddressSpace>(&mut self, _queue: u16, request: &Chain<M>) -> Option<u32> {
        let mut random = [0; 256];
        let ready = getrandom(&mut random, GetRandomFlags::empty()).unwrap_or(0);
        let filled = request.copy_to(0, &random[..ready]).unwrap_or(0) as u32;
        self.0 += u64::from(filled);
        Some(filled)
    }
    fn report(&self, id: DeviceId) {
        tracing::info!(%id, bytes = self.0, "the guest got this much entropy");
    }
}

fn main() -> ExitCode {
    xen_virtio_backend::main(InlineDevices::<Entropy>::new())
}
