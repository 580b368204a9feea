//! The disks as JSON.

use serde::Serialize;

use super::row::Row;

/// What `status --json` prints for an interval.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    /// Each disk.
    pub disks: &'a [Row],
    /// Domain ids of guests that are served by processes of another version, whose disks aren't known.
    pub unknown_domains: &'a [u16],
}
