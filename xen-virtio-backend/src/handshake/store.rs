//! What the handshake needs of xenstore as such.

use backend_process::chain;
use tracing::warn;
use xen_store::{Store, StoreExt};

use crate::node::Kind;

/// This domain's directory. A driver domain has its own number in `domid`; dom0 may have no such node at all.
pub(super) fn home(store: &dyn Store) -> Result<String, xen_store::Error> {
    let node = "domid";
    let number = |text: String| {
        let number = text.trim().parse();
        number.map_err(|source| xen_store::Error::NotNumber { path: node.into(), source })
    };
    let domid = store.lookup(None, node)?.map_or(Ok(0), number)?;
    store.domain_path(domid)
}

/// Has xenstore tell of every device below `dir`, and of the end of guests.
pub(super) fn watch(store: &dyn Store, dir: &str) -> Result<(), xen_store::Error> {
    for kind in Kind::ALL {
        store.watch(&format!("{dir}/{}", kind.dir()), kind.dir())?;
    }
    store.watch("@releaseDomain", "release")
}

/// What xenstore refuses concerns one node; only a lost connection concerns all.
pub(super) fn log_unless_disconnected<T>(
    result: Result<T, xen_store::Error>,
    consequence: &str,
) -> Result<Option<T>, xen_store::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_disconnected() => Err(error),
        Err(error) => {
            warn!(error = %chain(&error), "{consequence}");
            Ok(None)
        }
    }
}
