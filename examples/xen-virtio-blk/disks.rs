//! The disks as a kind of device: which nodes of xenstore they have, and how one is opened and made.

use std::{collections::BTreeSet, path::Path};

use tracing::warn;
use virtio_blk_dev::{ImageFiles, ImageWarning};
use xen_virtio_backend::{
    Backend, Built, Host, Parts, Refusal,
    node::{DeviceNode, DeviceType, Kind, NodeError, NodeReader},
};

use crate::{
    disk::Disk,
    figures::Figures,
    nodes::{DiskNodes, read_image},
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
    type Resources = (DiskSettings, ImageFiles);
    type Figures = Figures;
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

    fn open(&self, _: &DeviceNode, nodes: &DiskNodes) -> Result<Self::Resources, Refusal> {
        let settings = self.0.of(&nodes.image).clone();
        let opened = Storage::files(&nodes.image, nodes.read_only, &settings);
        Ok((settings, opened.map_err(Refusal::new)?))
    }

    fn build<H: Host>(
        node: &DeviceNode,
        nodes: DiskNodes,
        (settings, files): Self::Resources,
        parts: Parts<H>,
    ) -> Result<Built<Disk<H>, Figures>, Refusal> {
        let storage = Storage::new(files, None).map_err(Refusal::new)?;
        storage.image().warnings().into_iter().for_each(|warning| tell(&nodes.image, warning));
        let disk = Disk::new(node, &nodes, settings, storage, parts)?;
        let figures = disk.figures();
        Ok(Built { device: disk, figures })
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
