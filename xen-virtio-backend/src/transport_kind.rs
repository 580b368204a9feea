//! How a guest's devices are reached.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How a guest's devices are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Each in the virtio-mmio window that libxl tells the guest of.
    #[default]
    Mmio,
    /// On a PCI bus, if the guest looks for devices there, as one does whose `xl.cfg` names the device tree of
    /// [`DeviceTree`](crate::pci::DeviceTree); until it does, in their virtio-mmio windows. A request costs a third of
    /// the traps so.
    Pci,
}

impl TransportKind {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Mmio, Self::Pci];
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
        })
    }
}

impl FromStr for TransportKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is no transport: write mmio or pci"))
    }
}

/// Which guests have which transport. What an operator changes here holds for guests that are created after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transports {
    /// Of a guest that is not named.
    pub default: TransportKind,
    /// By the `name` of their `xl.cfg`.
    pub guests: BTreeMap<String, TransportKind>,
}

impl Transports {
    /// That of a guest; of one whose name isn't known the default.
    pub fn of(&self, name: Option<&str>) -> TransportKind {
        name.and_then(|name| self.guests.get(name)).copied().unwrap_or(self.default)
    }

    /// Whether a guest may have this one.
    pub(crate) fn have(&self, kind: TransportKind) -> bool {
        self.default == kind || self.guests.values().any(|its| *its == kind)
    }
}

impl From<TransportKind> for Transports {
    fn from(default: TransportKind) -> Self {
        Self { default, guests: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_named_has_its_own_transport_and_any_other_the_default() {
        let guests = BTreeMap::from([("web".to_owned(), TransportKind::Pci)]);
        let transports = Transports { default: TransportKind::Mmio, guests };
        assert_eq!(transports.of(Some("web")), TransportKind::Pci);
        assert_eq!(transports.of(Some("db")), TransportKind::Mmio);
        assert_eq!(transports.of(None), TransportKind::Mmio);
        assert!(transports.have(TransportKind::Pci) && transports.have(TransportKind::Mmio));
        assert!(!Transports::from(TransportKind::Mmio).have(TransportKind::Pci));
    }

    #[test]
    fn a_transport_is_written_as_it_is_read() {
        for kind in TransportKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("PCI".parse::<TransportKind>().is_err());
    }
}
