//! How a device reaches its guest's memory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a guest lets a device reach its memory: the node `grant_usage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sharing {
    /// `0`: the backend maps what it likes, and a buffer's address is where it is in the guest.
    Foreign,
    /// `1`: the guest grants page by page, and a buffer's address is a grant reference.
    Grant,
}

impl Sharing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Foreign, Self::Grant];
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Foreign => "foreign",
            Self::Grant => "grant",
        })
    }
}
