//! The devices as a kind.

use std::sync::{Arc, atomic::AtomicU64};

use xen_virtio_backend::{
    Backend, Built, Host, Parts, Refusal,
    node::{DeviceNode, DeviceType, NodeReader},
};

use crate::{device::DigestDevice, digest::Digest};

/// Serves every device of [`Digest`]'s type.
#[derive(Clone, Copy, Debug)]
pub struct Digests;

impl Backend for Digests {
    const NAME: &'static str = "digest-backend";

    /// The node `seed`.
    type Config = u64;
    type Resources = ();
    /// How many requests it has answered.
    type Figures = AtomicU64;
    type Device<H: Host> = DigestDevice<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == Digest::DEVICE_TYPE
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<u64, Refusal> {
        let seed = node.optional("seed", "a number", |text| text.parse().ok())?;
        Ok(seed.unwrap_or(0))
    }

    fn open(&self, _: &DeviceNode, _: &u64) -> Result<(), Refusal> {
        Ok(())
    }

    fn build<H: Host>(
        node: &DeviceNode,
        seed: u64,
        (): (),
        parts: Parts<H>,
    ) -> Result<Built<DigestDevice<H>, AtomicU64>, Refusal> {
        let figures = Arc::new(AtomicU64::new(0));
        let device = DigestDevice::new(node, seed, Arc::clone(&figures), parts)?;
        Ok(Built { device, figures })
    }

    fn describe(seed: &u64) -> String {
        format!("seed {seed}")
    }
}
