//! The nodes of one device, read and checked.

use xen_store::{Store, TxId};

use super::DeviceId;

/// Why a device's nodes can't be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A node is absent.
    #[error(
        "xenstore node {path} is missing: have the device written by libxl 4.17 or newer, with backendtype=standalone and specification=virtio in xl.cfg"
    )]
    Missing {
        /// The node.
        path: String,
    },
    /// A node has a value that no device can have.
    #[error(
        "xenstore node {path} is {value:?}, but should be {expected}: correct the device's line in xl.cfg"
    )]
    Invalid {
        /// The node.
        path: String,
        /// Its value, shortened.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// xenstore itself failed.
    #[error(transparent)]
    Store(#[from] xen_store::Error),
}

/// The directory of one device in xenstore.
#[derive(Clone, Copy)]
pub struct NodeReader<'a> {
    store: &'a dyn Store,
    tx: Option<TxId>,
    id: DeviceId,
    path: &'a str,
}

impl<'a> NodeReader<'a> {
    /// The device `id`, whose directory is `path`; read in the transaction `tx` if there is one.
    pub fn new(store: &'a dyn Store, tx: Option<TxId>, id: DeviceId, path: &'a str) -> Self {
        Self { store, tx, id, path }
    }

    /// Which device it is.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The node `node` as text, parsed. Bytes that are not UTF-8 are replaced before.
    ///
    /// # Errors
    /// It is missing, or `parse` gives `None` for its value, which should be `expected`; or xenstore
    /// failed.
    pub fn parse<T>(
        &self,
        node: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, NodeError> {
        self.parse_bytes(node, expected, |value| parse(&String::from_utf8_lossy(value)))
    }

    /// The same of its bytes.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse).
    pub fn parse_bytes<T>(
        &self,
        node: &str,
        expected: &'static str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, NodeError> {
        let path = format!("{}/{node}", self.path);
        let value = match self.store.read(self.tx, &path) {
            Ok(value) => value,
            Err(error) if error.is_not_found() => return Err(NodeError::Missing { path }),
            Err(error) => return Err(error.into()),
        };
        parse(&value).ok_or_else(|| self.invalid(node, &String::from_utf8_lossy(&value), expected))
    }

    /// The same of a node that may be missing.
    ///
    /// # Errors
    /// As of [`parse`](Self::parse), but for a missing node.
    pub fn optional<T>(
        &self,
        node: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, NodeError> {
        match self.parse(node, expected, parse) {
            Err(NodeError::Missing { .. }) => Ok(None),
            value => value.map(Some),
        }
    }

    /// A node that is `0` or `1`, and that not every libxl writes.
    ///
    /// # Errors
    /// It has another value; or xenstore failed.
    pub fn flag(&self, node: &str) -> Result<Option<bool>, NodeError> {
        self.optional(node, "\"0\" or \"1\"", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    /// Checks that `node` is `value`.
    ///
    /// # Errors
    /// It isn't, and should be `expected`; or xenstore failed.
    pub fn expect(&self, node: &str, value: &str, expected: &'static str) -> Result<(), NodeError> {
        self.parse(node, expected, |text| (text == value).then_some(()))
    }

    /// Whether the backend is dom0.
    pub(super) fn is_of_dom0(&self) -> bool {
        self.path.starts_with("/local/domain/0/")
    }

    /// The error for a node whose value is not as `expected`.
    pub fn invalid(&self, node: &str, value: &str, expected: &'static str) -> NodeError {
        // The value may be as long as xenstore lets it be; an error message is no place for that.
        let value = value.chars().take(64).collect();
        NodeError::Invalid { path: format!("{}/{node}", self.path), value, expected }
    }
}
