//! The disks as a kind of device: which nodes of xenstore they have, and how one is opened and made.

use std::{collections::BTreeSet, path::Path};

use backend_process::chain;
use tracing::warn;
use virtio_blk_dev::{ImageFacts, ImageFiles, ImageWarning, RingPool, UringConfig};
use xen_virtio_backend::{
    Backend, Host, Opened, Parts, Refusal,
    node::{DeviceNode, DeviceType, Kind, NodeError, NodeReader},
};

use crate::{
    disk::Disk,
    engine_kind::EngineKind,
    figures::Figures,
    nodes::{DiskNodes, read_image},
    order::Order,
    processors,
    settings::{DiskSettings, Settings},
    storage::Storage,
};

/// Said of a disk that no image can be had of.
const GENERIC: &str = "virtio = [ \"type=…\" ] names no image, so there is nothing to serve: write \
     disk = [ \"/path,raw,xvda,rw,backendtype=standalone,specification=virtio\" ] instead";

/// Serves every virtio disk.
#[derive(Debug)]
pub struct Disks(Settings);

impl Disks {
    /// Serves them as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self(settings)
    }
}

impl Backend for Disks {
    const NAME: &'static str = "xen-virtio-blk";

    type Config = DiskNodes;
    type Resources = (DiskSettings, ImageFacts);
    type Figures = Figures;
    type Order = Order;
    /// How many io_urings the process of a guest needs.
    type Setup = u16;
    /// They, if it needs any and the kernel has them.
    type Shared = Option<RingPool>;
    type Loaded = (DiskSettings, Storage);
    type Device<H: Host> = Disk<H>;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == DeviceType::BLOCK
    }

    fn read(&self, node: &NodeReader<'_>) -> Result<DiskNodes, Refusal> {
        match node.id().kind {
            Kind::Virtio => Err(Refusal::new(GENERIC)),
            Kind::VirtioDisk => Ok(DiskNodes::read(node)?),
        }
    }

    fn open(&self, _: &DeviceNode, nodes: &DiskNodes) -> Result<Opened<Self::Resources>, Refusal> {
        let settings = self.0.of(&nodes.image).clone();
        let opened = Storage::files(&nodes.image, nodes.read_only, &settings);
        let (facts, files) = opened.map_err(Refusal::new)?.into_parts();
        Ok(Opened { resources: (settings, facts), files })
    }

    fn setup(&self) -> u16 {
        self.0.rings()
    }

    fn threads(&self) -> u32 {
        self.0.threads(processors::possible())
    }

    fn share(rings: u16) -> Option<RingPool> {
        if rings == 0 {
            return None;
        }
        let made = RingPool::new(rings, UringConfig::default().depth);
        made.inspect_err(|error| warn!(error = %chain(error), "the guest's process has no io_urings, and its disks are served by the engine sync")).ok()
    }

    fn load(
        rings: &Option<RingPool>,
        nodes: &DiskNodes,
        opened: Opened<Self::Resources>,
    ) -> Result<(DiskSettings, Storage), Refusal> {
        let Opened { resources: (mut settings, facts), files } = opened;
        if rings.is_none() {
            // The process has no right to make one, and would be ended.
            settings.engine = EngineKind::Sync;
        }
        let files = ImageFiles::from_parts(facts, files).map_err(Refusal::new)?;
        let storage = Storage::new(files, rings.as_ref()).map_err(Refusal::new)?;
        storage.image().warnings().into_iter().for_each(|warning| tell(&nodes.image, warning));
        Ok((settings, storage))
    }

    fn build<H: Host>(
        node: &DeviceNode,
        nodes: DiskNodes,
        (settings, storage): Self::Loaded,
        parts: Parts<H>,
    ) -> Result<Disk<H>, Refusal> {
        Disk::new(node, &nodes, settings, storage, parts)
    }

    fn describe(nodes: &DiskNodes) -> String {
        nodes.image.display().to_string()
    }

    fn on_listed(&self, devices: &[NodeReader<'_>]) -> Result<(), NodeError> {
        let mut images = BTreeSet::new();
        for node in devices {
            images.extend(read_image(node)?);
        }
        self.0.warn_of_unmatched(&images);
        Ok(())
    }
}

fn tell(path: &Path, warning: ImageWarning) {
    let image = path.display();
    match warning {
        ImageWarning::OtherFormat { .. } => warn!(
            %image,
            "{warning}; if so, state its format in the file that --config names, as `format = \"qcow2\"` under \
             [{path:?}], or convert it with `qemu-img convert -O raw`"
        ),
        _ => warn!(%image, "{warning}"),
    }
}
