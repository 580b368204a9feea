use super::error::ConfigError;

/// Bytes of a device identifier (virtio 1.2 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
pub const SERIAL_LEN: usize = 20;

/// What the guest reads as the disk's identifier: at most 20 bytes, padded with NUL, none of
/// which need be a terminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Serial([u8; SERIAL_LEN]);

/// As text, without the padding.
#[cfg(feature = "serde")]
impl serde::Serialize for Serial {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(&self.0).map_err(serde::ser::Error::custom)?;
        text.trim_end_matches('\0').serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Serial {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl Serial {
    /// The identifier `serial`.
    ///
    /// # Errors
    /// [`ConfigError::Serial`] if it is longer than 20 bytes: a cut one may not be unique.
    pub fn new(serial: &str) -> Result<Self, ConfigError> {
        let mut bytes = [0; SERIAL_LEN];
        bytes
            .get_mut(..serial.len())
            .ok_or_else(|| ConfigError::Serial(serial.to_owned()))?
            .copy_from_slice(serial.as_bytes());
        Ok(Self(bytes))
    }

    /// The 20 bytes, as the guest gets them.
    pub fn as_bytes(&self) -> &[u8; SERIAL_LEN] {
        &self.0
    }
}
