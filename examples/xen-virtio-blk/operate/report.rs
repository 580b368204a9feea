//! A disk in words.

use xen_virtio_backend::{control::DeviceStatusOf, node::DeviceId};

use crate::{disk_name::disk_name, disks::Disks};

/// A guest's name, or its number.
pub(super) fn guest(device: &DeviceStatusOf<Disks>) -> String {
    device.guest.name.clone().unwrap_or_else(|| device.id.domid.to_string())
}

/// Guest and disk, for a line about it.
pub(super) fn name(device: &DeviceStatusOf<Disks>) -> String {
    format!("{} {}", guest(device), disk(device.id))
}

/// A disk as xl.cfg names it.
pub(super) fn disk(id: DeviceId) -> String {
    disk_name(id.devid)
}
