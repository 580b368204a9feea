//! Why a device is not served.

use std::error::Error;

use crate::node::NodeError;

/// Why a device is not served. The text is written to the log and to the device's error nodes in xenstore, where
/// `xl` and an operator find it: it names what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A node is missing or wrong.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Anything else.
    #[error(transparent)]
    Other(Box<dyn Error + Send + Sync>),
}

impl Refusal {
    /// The refusal with this error or text.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
