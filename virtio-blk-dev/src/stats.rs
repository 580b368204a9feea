use std::io;
use std::ops::AddAssign;

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
        self.sum(|op| op.requests)
    }

    /// All requests answered with a status other than OK, whosever fault it was.
    pub fn errors(&self) -> u64 {
        self.sum(|op| op.errors)
    }

    fn sum(&self, count: impl Fn(&OpStats) -> u64) -> u64 {
        [self.read, self.write, self.flush, self.get_id, self.other]
            .iter()
            .fold(0, |sum, op| sum.wrapping_add(count(op)))
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

/// The sum over several queues, or over the same queue before and after a reset.
impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        for (op, more) in [
            (&mut self.read, other.read),
            (&mut self.write, other.write),
            (&mut self.flush, other.flush),
            (&mut self.get_id, other.get_id),
            (&mut self.other, other.other),
        ] {
            op.requests = op.requests.wrapping_add(more.requests);
            op.bytes = op.bytes.wrapping_add(more.bytes);
            op.errors = op.errors.wrapping_add(more.errors);
        }
        self.host_errors = self.host_errors.wrapping_add(other.host_errors);
        self.without_status = self.without_status.wrapping_add(other.without_status);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_counts_every_kind() {
        let mut one = Stats { host_errors: 1, without_status: 2, ..Stats::default() };
        one.count(RequestKind::Read, true, 512);
        one.count(RequestKind::Write, false, 512);
        one.count(RequestKind::Flush, true, 0);
        one.count(RequestKind::GetId, true, 20);
        one.count(RequestKind::Other, false, 0);
        let mut sum = one;
        sum += one;
        assert_eq!((sum.requests(), sum.errors()), (10, 4));
        assert_eq!(sum.read, OpStats { requests: 2, bytes: 1024, errors: 0 });
        assert_eq!(sum.write, OpStats { requests: 2, bytes: 0, errors: 2 });
        assert_eq!((sum.host_errors, sum.without_status), (2, 4));
    }
}
