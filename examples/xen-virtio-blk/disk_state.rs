//! How far a disk is, and whether it works.

use std::time::Duration;

use serde::Serialize;
use xen_virtio_backend::control::{DeviceState, DeviceStatusOf};

use crate::{disks::Disks, figures::Figures};

/// Without an answer for so long, requests that wait are stalled.
const STALLED: Duration = Duration::from_secs(5);

/// How far a disk is, and whether it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// Its image is opened, or its guest's process attaches it.
    Opening,
    /// The guest's driver does not use it, yet or any more.
    Ready,
    /// The guest's driver uses it.
    Active,
    /// Requests wait, and none was answered for some seconds.
    Stalled,
    /// It is let go of.
    Closing,
    /// It is let go of, and its storage does not answer.
    Stuck,
    /// It is not served.
    Refused,
}

impl DiskState {
    /// Each.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Ready,
        Self::Active,
        Self::Stalled,
        Self::Closing,
        Self::Stuck,
        Self::Refused,
    ];

    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Stalled => "stalled",
            Self::Closing => "closing",
            Self::Stuck => "stuck",
            Self::Refused => "refused",
        }
    }

    /// That of a disk, and what is wrong with it.
    pub fn of(device: &DeviceStatusOf<Disks>) -> (Self, Option<String>) {
        match &device.state {
            DeviceState::Opening => (Self::Opening, None),
            DeviceState::Closing { stuck: false } => (Self::Closing, None),
            DeviceState::Closing { stuck: true } => (
                Self::Stuck,
                Some("its storage does not answer, so that it can't be closed".to_owned()),
            ),
            DeviceState::Refused(reason) => (Self::Refused, Some(reason.clone())),
            _ => device.figures.as_ref().map_or((Self::Ready, None), Self::of_served),
        }
    }

    fn of_served(figures: &Figures) -> (Self, Option<String>) {
        if figures.stats.stalled >= STALLED {
            let seconds = figures.stats.stalled.as_secs();
            let reason = format!("no request was answered for {seconds} s: check its storage");
            return (Self::Stalled, Some(reason));
        }
        let lost = figures.flush_failed.then(|| {
            "its storage failed to keep what the guest wrote, and every flush fails: check the storage, then destroy and \
             create the guest"
                .to_owned()
        });
        (if figures.driver { Self::Active } else { Self::Ready }, lost)
    }
}
