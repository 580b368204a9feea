//! What a device has to say where the toolstack looks.

use std::{fmt, sync::Arc};

use crate::node::DeviceId;

/// For what the operator should find in xenstore. A device tells each thing once, so that no guest fills anything by
/// it.
#[derive(Clone)]
pub struct Notices(Arc<dyn Fn(DeviceId, String) + Send + Sync>);

impl Notices {
    pub(crate) fn new(tell: impl Fn(DeviceId, String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Has `text` written to the error nodes of a device that is served.
    pub fn tell(&self, id: DeviceId, text: &str) {
        (self.0)(id, text.to_owned());
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}
