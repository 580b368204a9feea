//! Where xenstore says why a device is not served.

use backend_process::chain;
use tracing::warn;
use xen_ioreq::DomId;
use xen_store::{Store, StoreExt};

use super::{DeviceId, Kind};

/// The error nodes of one domain's devices: `<home>/error/backend/…`, where Linux's xenbus_dev_error() writes,
/// and `error` in the device's own directory.
pub(crate) struct ErrorNodes {
    /// `/local/domain/<own domid>`.
    home: String,
}

impl ErrorNodes {
    pub(crate) fn new(home: String) -> Self {
        Self { home }
    }

    /// Writes `message` for the device whose directory is `path`. What stands in the error directory
    /// outlives the device's own.
    pub(crate) fn write(&self, store: &dyn Store, id: DeviceId, path: &str, message: &str) {
        for node in [format!("{}/error", self.dir(id)), format!("{path}/error")] {
            if let Err(error) = store.write(None, &node, message.as_bytes()) {
                warn!(%id, node, error = %chain(&error), "the device's error can't be written to xenstore: it is in this log only");
            }
        }
    }

    /// Removes what was said of a device: it is no longer true.
    pub(crate) fn remove(&self, store: &dyn Store, id: DeviceId) -> Result<(), xen_store::Error> {
        remove(store, &self.dir(id))
    }

    /// libxl removes a refused device's directory and its guest; what stands in the error directory is
    /// there to be read after that. It goes when another guest comes, so that errors don't pile up.
    pub(crate) fn sweep(&self, store: &dyn Store, newcomer: DomId) -> Result<(), xen_store::Error> {
        for kind in Kind::ALL {
            let top = format!("{}/error/backend/{}", self.home, kind.dir());
            for name in store.children(None, &top)? {
                let Ok(domid) = name.parse::<DomId>() else { continue };
                if domid != newcomer && store.children(None, &store.domain_path(domid)?)?.is_empty()
                {
                    remove(store, &format!("{top}/{name}"))?;
                }
            }
        }
        Ok(())
    }

    fn dir(&self, id: DeviceId) -> String {
        format!("{}/error/{}", self.home, id.path("backend"))
    }
}

/// Removes a node that may be missing.
pub(crate) fn remove(store: &dyn Store, path: &str) -> Result<(), xen_store::Error> {
    match store.rm(None, path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
