//! The devices as a kind.

use xen_virtio_backend::{
    Backend, Host, Opened, Parts, Refusal,
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
    type Figures = u64;
    type Order = ();
    type Setup = ();
    type Shared = ();
    type Loaded = ();
    type Device<H: Host> = DigestDevice<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == Digest::DEVICE_TYPE
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<u64, Refusal> {
        let seed = node.optional("seed", "a number", |text| text.parse().ok())?;
        Ok(seed.unwrap_or(0))
    }

    fn open(&self, _: &DeviceNode, _: &u64) -> Result<Opened<()>, Refusal> {
        Ok(Opened { resources: (), files: Vec::new() })
    }

    fn setup(&self) {}

    fn share((): ()) {}

    fn load((): &(), _: &u64, _: Opened<()>) -> Result<(), Refusal> {
        Ok(())
    }

    fn build<H: Host>(
        _: &DeviceNode,
        seed: u64,
        (): (),
        parts: Parts<H>,
    ) -> Result<DigestDevice<H>, Refusal> {
        DigestDevice::new(seed, parts)
    }

    fn describe(seed: &u64) -> String {
        format!("seed {seed}")
    }
}
