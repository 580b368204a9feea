//! A disk in words.

use xen_virtio_backend::{control::DeviceStatusOf, node::DeviceId};

use crate::{disk_name::disk_name, disks::Disks};

/// A guest's name, or its number.
pub(super) fn guest(device: &DeviceStatusOf<Disks>) -> String {
    device.guest.name.clone().unwrap_or_else(|| device.id.domid.to_string())
}

/// Guest and disk, for a line about it.
pub(super) fn name(device: &DeviceStatusOf<Disks>) -> String {
    printable(&format!("{} {}", guest(device), disk(device.id)))
}

/// A disk as xl.cfg names it.
pub(super) fn disk(id: DeviceId) -> String {
    disk_name(id.devid)
}

/// What a guest may be behind, if it has taken over its process, for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_guest_may_be_behind_controls_the_terminal() {
        assert_eq!(printable("a\x1b[2J\u{9b}b\r\nä"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\u{fffd}ä");
    }
}
