//! What a series is of.

use std::fmt::{self, Display};

use xen_virtio_backend::{control::DeviceStatusOf, node::Sharing};

use crate::{disk_name::disk_name, disks::Disks};

/// The labels of a disk's series. They stay the same when the guest is rebooted, so its number is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn of(device: &DeviceStatusOf<Disks>) -> Self {
        let image = device.read.as_ref().map(|(_, nodes)| nodes.image.display().to_string());
        let guest = Self::of_guest(device).and("disk", &disk_name(device.id.devid));
        guest.and("image", &image.unwrap_or_default())
    }

    /// Those of what is the same for all disks of the guest that reach its memory in one way.
    pub(super) fn of_memory(device: &DeviceStatusOf<Disks>, sharing: Sharing) -> Self {
        Self::of_guest(device).and("mapping", &sharing.to_string())
    }

    fn of_guest(device: &DeviceStatusOf<Disks>) -> Self {
        let name = device.guest.name.clone().unwrap_or_else(|| device.id.domid.to_string());
        let uuid = device.guest.uuid.as_deref().unwrap_or_default();
        Self(label("guest", &name)).and("uuid", uuid)
    }

    /// With one more.
    pub(super) fn and(&self, name: &str, value: &str) -> Self {
        Self(format!("{},{}", self.0, label(name, value)))
    }
}

impl Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `name="value"`, as the text format escapes it.
fn label(name: &str, value: &str) -> String {
    let mut text = format!("{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_escaped_as_the_text_format_has_it() {
        assert_eq!(label("image", "/a \"b\"\\c\nd"), r#"image="/a \"b\"\\c\nd""#);
    }
}
