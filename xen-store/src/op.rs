//! The operations, by their numbers on the wire.

use std::fmt;

/// A xenstore operation (`enum xsd_sockmsg_type`, `xen/include/public/io/xs_wire.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum Op {
    /// `XS_DIRECTORY`: list the children of a node.
    Directory = 1,
    /// `XS_READ`: read a value.
    Read = 2,
    /// `XS_GET_PERMS`: read the permissions.
    GetPerms = 3,
    /// `XS_WATCH`: register a watch.
    Watch = 4,
    /// `XS_UNWATCH`: remove a watch.
    Unwatch = 5,
    /// `XS_TRANSACTION_START`.
    TransactionStart = 6,
    /// `XS_TRANSACTION_END`: commit or abort.
    TransactionEnd = 7,
    /// `XS_GET_DOMAIN_PATH`: where a domain's nodes are.
    GetDomainPath = 10,
    /// `XS_WRITE`: set a value.
    Write = 11,
    /// `XS_MKDIR`: create a node.
    Mkdir = 12,
    /// `XS_RM`: remove a node and everything below it.
    Rm = 13,
    /// `XS_SET_PERMS`: set the permissions.
    SetPerms = 14,
    /// `XS_WATCH_EVENT`: a watch fired. The daemon sends it unasked.
    WatchEvent = 15,
    /// `XS_DIRECTORY_PART`: list the children of a node piece by piece.
    DirectoryPart = 22,
}

/// Completes the sentence "cannot … *path*".
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory | Self::DirectoryPart => "list",
            Self::Read => "read",
            Self::GetPerms => "read the permissions of",
            Self::Watch => "watch",
            Self::Unwatch => "stop watching",
            Self::TransactionStart => "start a transaction",
            Self::TransactionEnd => "end transaction",
            Self::GetDomainPath => "find the path of domain",
            Self::Write => "write",
            Self::Mkdir => "create",
            Self::Rm => "remove",
            Self::SetPerms => "set the permissions of",
            Self::WatchEvent => "take a watch event",
        })
    }
}
