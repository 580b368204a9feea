use std::io;

use crate::request::RequestKind;

/// What a queue has done since its worker was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads.
    pub read: OpStats,
    /// Writes.
    pub write: OpStats,
    /// Flushes.
    pub flush: OpStats,
    /// Questions for the identifier.
    pub get_id: OpStats,
    /// Requests of a type not served, or without a readable header.
    pub other: OpStats,
    /// Errors of the host, which [`Worker::take_last_error`](crate::Worker::take_last_error)
    /// tells about; the other errors are the guest's mistakes.
    pub host_errors: u64,
    /// Requests returned without a status, as there was no place for one.
    pub without_status: u64,
}

/// The requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpStats {
    /// Requests answered, whatever the status.
    pub requests: u64,
    /// Bytes moved by those that succeeded.
    pub bytes: u64,
    /// Requests answered with a status other than OK.
    pub errors: u64,
}

impl Stats {
    /// All requests answered.
    pub fn requests(&self) -> u64 {
        [self.read, self.write, self.flush, self.get_id, self.other]
            .iter()
            .fold(0, |sum, op| sum.wrapping_add(op.requests))
    }

    pub(crate) fn count(&mut self, kind: RequestKind, ok: bool, bytes: u64) {
        let op = match kind {
            RequestKind::Read => &mut self.read,
            RequestKind::Write => &mut self.write,
            RequestKind::Flush => &mut self.flush,
            RequestKind::GetId => &mut self.get_id,
            RequestKind::Other => &mut self.other,
        };
        op.requests = op.requests.wrapping_add(1);
        if ok {
            op.bytes = op.bytes.wrapping_add(bytes);
        } else {
            op.errors = op.errors.wrapping_add(1);
        }
    }
}

/// A request the host failed. The guest got `VIRTIO_BLK_S_IOERR`.
#[derive(Debug, thiserror::Error)]
#[error("{kind:?} at sector {sector}: {source}")]
#[non_exhaustive]
pub struct HostError {
    /// What the guest asked for.
    pub kind: RequestKind,
    /// Where, in units of 512 bytes; 0 for a flush.
    pub sector: u64,
    /// What the system said; `raw_os_error` has the errno.
    pub source: io::Error,
}
