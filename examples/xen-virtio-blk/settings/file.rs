//! The file of `--config`.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use xen_virtio_backend::TransportKind;

use super::{SettingsError, table::DiskTable};

/// The one table that is not of an image: its entries are of guests.
const GUESTS: &str = "guests";

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    /// Of single images.
    pub(super) disks: BTreeMap<PathBuf, DiskTable>,
    /// Of single guests, by the `name` of their xl.cfg.
    pub(super) guests: BTreeMap<String, GuestTable>,
}

/// What the file says of one guest.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuestTable {
    /// How its disks are reached.
    pub(super) transport: Option<TransportKind>,
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self, SettingsError> {
        let failed = |source| SettingsError::Unreadable { path: path.to_owned(), source };
        Self::parse(path, &fs::read_to_string(path).map_err(failed)?)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let wrong =
            |source| SettingsError::Syntax { path: path.to_owned(), source: Box::new(source) };
        // As `DiskTable`, a setting outside of the tables would be refused as being none.
        let entries: toml::Table = toml::from_str(text).map_err(wrong)?;
        if let Some((key, _)) = entries.iter().find(|(_, value)| !value.is_table()) {
            return Err(SettingsError::NoTable { path: path.to_owned(), key: key.clone() });
        }
        let file: Self = toml::from_str(text).map_err(wrong)?;
        match file.disks.keys().find(|image| !image.is_absolute()) {
            Some(image) => {
                Err(SettingsError::Relative { path: path.to_owned(), image: image.clone() })
            }
            None => Ok(file),
        }
    }
}

/// Key by key, so that an error tells its line: what serde's `flatten` has collected before does not.
impl<'de> Deserialize<'de> for ConfigFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tables;

        impl<'de> Visitor<'de> for Tables {
            type Value = ConfigFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table for each image, and [guests.NAME] for guests")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ConfigFile, A::Error> {
                let mut file = ConfigFile::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == GUESTS {
                        file.guests = map.next_value()?;
                    } else {
                        file.disks.insert(PathBuf::from(key), map.next_value()?);
                    }
                }
                Ok(file)
            }
        }

        deserializer.deserialize_map(Tables)
    }
}
