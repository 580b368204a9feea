//! What attaching a disk takes, and why it may fail.

use std::{io, path::Path, time::Duration};

use backend_process::limits;
use tracing::warn;
use virtio_blk_dev::{ImageWarning, OpenError};

use crate::{
    guest::GuestError,
    nodes::{DiskNodes, NodeError},
    patience::within,
    settings::{DiskSettings, Settings},
    storage::Storage,
};

/// How long one device may hold up the handshakes of the others. libxl gives a backend 10 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// Why a device is not served. What it says is written to the device's error nodes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error(
        "virtio = [ \"type=…\" ] names no image, so there is nothing to serve: write \
         disk = [ \"/path,raw,xvda,rw,backendtype=standalone,specification=virtio\" ] instead"
    )]
    GenericVirtio,
    #[error(
        "xen-virtio-blk was told to stop and refuses new disks: start it again when the {guests} guests that \
         it serves have ended, then create this guest again"
    )]
    Stopping { guests: usize },
    #[error(transparent)]
    Nodes(#[from] NodeError),
    #[error(transparent)]
    Image(#[from] OpenError),
    #[error(
        "image {path} did not open within {seconds} s: check that its storage answers, then create the guest again"
    )]
    Slow { path: String, seconds: u64 },
    #[error(
        "no thread can be started to open the image: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)"
    )]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl AttachError {
    /// What to do about it, where that depends on what the kernel said and isn't in its text.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::Image(error) => limits::advice(error),
            Self::Guest(GuestError::Ioreq(error)) => limits::advice(error),
            _ => None,
        }
    }
}

/// Finds out how a disk is served, and opens its image, for a bounded time.
pub(crate) fn open(
    nodes: &DiskNodes,
    settings: &Settings,
) -> Result<(DiskSettings, Storage), AttachError> {
    let (path, read_only, settings) = (nodes.image.clone(), nodes.read_only, settings.clone());
    let opened = within(PATIENCE, move || {
        let settings = settings.of(&path).clone();
        let storage = Storage::open(&path, read_only, &settings)?;
        storage.image().warnings().into_iter().for_each(|warning| tell(&path, warning));
        Ok::<_, OpenError>((settings, storage))
    });
    let slow = || AttachError::Slow {
        path: nodes.image.display().to_string(),
        seconds: PATIENCE.as_secs(),
    };
    Ok(opened.map_err(AttachError::Thread)?.ok_or_else(slow)??)
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
