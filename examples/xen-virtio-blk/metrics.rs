//! The disks' figures for Prometheus, in a file for node_exporter's textfile collector.
//!
//! A dom0 should listen on no network; a file takes no port, and is there when the daemon is stuck.

use std::{
    fs::Permissions,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{info, warn};
use xen_virtio_backend::{control::StatusOf, daemon::Metrics};

use crate::disks::Disks;

mod labels;
mod text;

pub use text::render;

/// Has `text` be the content of the file at `path`. Others may be able to write to its directory, and this runs as root:
/// the new file has a name that nobody can foresee and is created by this (`O_EXCL`), and a link at `path` is replaced,
/// not followed.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // node_exporter reads *.prom only, as another user.
    let mut new = tempfile::Builder::new()
        .prefix(".xen-virtio-blk-")
        .suffix(".new")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    new.write_all(text)?;
    new.persist(path)?;
    Ok(())
}

/// The file, written anew at intervals. A reader finds the old text or the new one, never a part.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    interval: Duration,
    due: Instant,
    failing: bool,
}

impl MetricsFile {
    /// Due at once, and then after each `interval`.
    pub fn new(path: PathBuf, interval: Duration) -> Self {
        Self { path, interval, due: Instant::now(), failing: false }
    }
}

impl Metrics<Disks> for MetricsFile {
    fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Writes it now. That this fails is said once, and when it no longer does.
    fn write(&mut self, status: &StatusOf<Disks>) {
        self.due = Instant::now() + self.interval;
        let written = replace(&self.path, render(status).as_bytes());
        let path = self.path.display();
        match written {
            Ok(()) if self.failing => info!(%path, "the metrics are written again"),
            Err(ref error) if !self.failing => {
                warn!(%path, error = %chain(&error), "the metrics can't be written, and are tried again each --metrics-interval: correct the error, or name another --metrics-file")
            }
            _ => {}
        }
        self.failing = written.is_err();
    }
}
