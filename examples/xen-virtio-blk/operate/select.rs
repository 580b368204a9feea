//! Which disks an operator means.

use std::path::Path;

use xen_virtio_backend::control::{DeviceStatusOf, GuestName, StatusOf};

use super::report;
use crate::disks::Disks;

/// Which disks an operator means; `None` are all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection<'a> {
    /// A guest's name, domain id or UUID.
    pub guest: Option<&'a str>,
    /// A disk's name, number, or the path of its image.
    pub disk: Option<&'a str>,
}

/// Why nothing is meant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// No such guest.
    #[error("no guest {guest:?} has a virtio disk here: {}", list(.known, "there are", "there is none"))]
    Guest {
        /// What was asked for.
        guest: String,
        /// The names of those that have.
        known: Vec<String>,
    },
    /// No such disk.
    #[error("the guest {guest} has no disk {disk:?}: {}", list(.known, "it has", "it has none"))]
    Disk {
        /// The guest.
        guest: String,
        /// What was asked for.
        disk: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// Several guests have this name.
    #[error("several guests are called {guest:?}: name one by its domain id, {}", list(.domids, "one of", ""))]
    Ambiguous {
        /// The name.
        guest: String,
        /// Their domain ids.
        domids: Vec<String>,
    },
}

fn list(known: &[String], some: &str, none: &str) -> String {
    if known.is_empty() { none.to_owned() } else { format!("{some} {}", known.join(", ")) }
}

impl Selection<'_> {
    /// The disks that are meant.
    ///
    /// # Errors
    /// There are none, or the guest's name is that of several.
    pub fn of<'s>(
        &self,
        status: &'s StatusOf<Disks>,
    ) -> Result<Vec<&'s DeviceStatusOf<Disks>>, SelectError> {
        let devices: Vec<_> =
            status.devices.iter().filter(|device| self.is_of_guest(device)).collect();
        let Some(guest) = self.guest else { return Ok(devices) };
        if devices.is_empty() {
            let mut known: Vec<_> = status.devices.iter().map(report::guest).collect();
            known.dedup();
            return Err(SelectError::Guest { guest: guest.to_owned(), known });
        }
        let mut domids: Vec<_> = devices.iter().map(|device| device.id.domid.to_string()).collect();
        domids.dedup();
        if domids.len() > 1 {
            return Err(SelectError::Ambiguous { guest: guest.to_owned(), domids });
        }
        let Some(disk) = self.disk else { return Ok(devices) };
        let found: Vec<_> =
            devices.iter().copied().filter(|device| is_disk(device, disk)).collect();
        if found.is_empty() {
            let known = devices.iter().map(|device| report::disk(device.id)).collect();
            let (guest, disk) = (guest.to_owned(), disk.to_owned());
            return Err(SelectError::Disk { guest, disk, known });
        }
        Ok(found)
    }

    fn is_of_guest(&self, device: &DeviceStatusOf<Disks>) -> bool {
        let GuestName { name, uuid, .. } = &device.guest;
        let domid = device.id.domid.to_string();
        self.guest.is_none_or(|guest| {
            guest == domid || name.as_deref() == Some(guest) || uuid.as_deref() == Some(guest)
        })
    }
}

fn is_disk(device: &DeviceStatusOf<Disks>, disk: &str) -> bool {
    let has_image =
        |path: &Path| device.read.as_ref().is_some_and(|(_, nodes)| nodes.image == path);
    disk == report::disk(device.id)
        || disk == device.id.devid.to_string()
        || has_image(Path::new(disk))
}
