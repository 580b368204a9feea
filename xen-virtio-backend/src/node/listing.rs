//! What devices xenstore has, whoever serves them.

use tracing::warn;
use xen_store::{Store, StoreExt};

use super::{DeviceId, Kind};

/// Every device below `backend`, the directory that holds the kinds.
pub(crate) fn devices(store: &dyn Store, backend: &str) -> Result<Vec<DeviceId>, xen_store::Error> {
    let mut devices = Vec::new();
    for kind in Kind::ALL {
        let top = format!("{backend}/{}", kind.dir());
        for domid in store.children(None, &top)? {
            for devid in store.children(None, &format!("{top}/{domid}"))? {
                let path = format!("{top}/{domid}/{devid}");
                match DeviceId::from_path(backend, &path) {
                    Some(id) => devices.push(id),
                    None => warn!(
                        path,
                        "not a device, and ignored: its path should end in a domid and a device number; remove it with `xenstore-rm`"
                    ),
                }
            }
        }
    }
    Ok(devices)
}

/// A node's text, whatever its bytes; `None` if there is no such node.
pub(crate) fn read_node(store: &dyn Store, path: &str) -> Result<Option<String>, xen_store::Error> {
    match store.read(None, path) {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
