use std::io;

use crate::request::RequestKind;

/// A request the host failed. The guest got `VIRTIO_BLK_S_IOERR`.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?} at sector {sector} failed")]
#[non_exhaustive]
pub struct HostError {
    /// What the guest asked for.
    pub kind: RequestKind,
    /// Where, in units of 512 bytes; 0 for a flush.
    pub sector: u64,
    /// What the system said; `raw_os_error` has the errno.
    pub source: io::Error,
}

impl HostError {
    /// A copy of the error, which keeps the errno.
    pub(crate) fn again(&self) -> Self {
        let Self { kind, sector, source } = self;
        let source = source
            .raw_os_error()
            .map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
        Self { kind: *kind, sector: *sector, source }
    }
}
