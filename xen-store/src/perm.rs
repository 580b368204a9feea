//! Permissions of a node.

use std::fmt;
use std::str::FromStr;

/// A Xen domain identifier (`domid_t`).
pub type DomId = u16;

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: read it.
    Read,
    /// `w`: write it.
    Write,
    /// `b`: both.
    Both,
}

impl Access {
    /// Whether it may be read.
    pub fn can_read(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether it may be written.
    pub fn can_write(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry of a node's permissions. In the first entry of a list, the domain is the owner, who may do
/// everything, and the access is that of every domain not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Perm {
    /// The domain.
    pub domid: DomId,
    /// Its access.
    pub access: Access,
}

impl Perm {
    /// An entry.
    pub fn new(domid: DomId, access: Access) -> Self {
        Self { domid, access }
    }
}

/// As on the wire: `r5`, `n0` (`docs/misc/xenstore.txt`).
impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

/// The text is no permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a xenstore permission: a letter of n, r, w, b and a domain are wanted, as in r5")]
pub struct ParsePermError;

impl FromStr for Perm {
    type Err = ParsePermError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut chars = text.chars();
        let access = match chars.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(ParsePermError),
        };
        let digits = chars.as_str();
        // `parse` alone would take a sign.
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParsePermError);
        }
        let domid = digits.parse().map_err(|_| ParsePermError)?;
        Ok(Self { domid, access })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, domid, access) in [
            ("n0", 0, Access::None),
            ("r5", 5, Access::Read),
            ("w17", 17, Access::Write),
            ("b65535", 65535, Access::Both),
        ] {
            let perm = Perm::new(domid, access);
            assert_eq!(text.parse(), Ok(perm));
            assert_eq!(perm.to_string(), text);
        }
        for text in ["", "r", "x5", "r-1", "r+1", "r65536", "5r", "r5 ", "é5"] {
            assert_eq!(text.parse::<Perm>(), Err(ParsePermError), "{text}");
        }
    }
}
