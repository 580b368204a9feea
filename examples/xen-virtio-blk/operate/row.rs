//! What a disk does, from two looks at it.

use std::time::Instant;

use serde::Serialize;
use virtio_blk_dev::{Latency, RateLimits, RequestKind, Stats};
use xen_virtio_backend::{
    control::{DeviceStatusOf, StatusOf},
    node::Sharing,
};

use super::report;
use crate::{disk_state::DiskState, disks::Disks};

/// What the daemon knew at a time.
#[derive(Debug)]
pub struct Snapshot {
    /// When.
    pub at: Instant,
    /// That.
    pub status: StatusOf<Disks>,
}

/// A disk, and what it did in an interval. Units are in the names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The guest's name.
    pub guest: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Its number.
    pub domid: u16,
    /// The disk as xl.cfg names it.
    pub disk: String,
    /// Its number.
    pub devid: u32,
    /// Where the image is.
    pub image: Option<String>,
    /// `rw` or `ro`.
    pub mode: Option<&'static str>,
    /// How the guest's memory is reached: `foreign` or `grant`.
    pub mapping: Option<&'static str>,
    /// How far it is.
    pub state: DiskState,
    /// Why, of one that is refused; or what is wrong with one that is served.
    pub reason: Option<String>,
    /// The process that serves it.
    pub pid: Option<u32>,
    /// Its limits.
    pub limits: RateLimits,
    /// Requests taken and not answered: the queue's depth.
    pub in_flight: u64,
    /// Requests answered in a second.
    pub iops: f64,
    /// Bytes read and written in a second.
    pub bytes_per_second: f64,
    /// The time that half of the reads and writes took at most; `None` if there were none.
    pub p50_us: Option<f64>,
    /// The time that 99 of 100 took at most.
    pub p99_us: Option<f64>,
    /// Requests answered with an error, since the guest was created first.
    pub errors: u64,
    /// Of them, those that the host failed.
    pub host_errors: u64,
    /// Requests answered, since the guest was created first.
    pub requests: u64,
    /// Bytes of the guest's memory that are mapped, for all its disks.
    pub mapped_bytes: u64,
}

/// Each disk of the later snapshot, by what it did since the earlier one.
pub fn rows(earlier: &Snapshot, later: &Snapshot) -> Vec<Row> {
    let seconds = later.at.saturating_duration_since(earlier.at).as_secs_f64();
    let before = |device: &DeviceStatusOf<Disks>| {
        let same = earlier.status.devices.iter().find(|other| other.id == device.id)?;
        same.figures.as_ref().map(|figures| figures.stats.clone())
    };
    let devices = later.status.devices.iter();
    devices.map(|device| row(device, before(device), seconds)).collect()
}

fn row(device: &DeviceStatusOf<Disks>, before: Option<Stats>, seconds: f64) -> Row {
    let figures = device.figures.clone().unwrap_or_default();
    // What a disk did before it was first looked at was not done in this interval.
    let stats = figures.stats.since(before.as_ref().unwrap_or(&figures.stats));
    let mut latency = Latency::default();
    let mut bytes = 0;
    for kind in [RequestKind::Read, RequestKind::Write] {
        latency.add(&stats[kind].latency);
        bytes += stats[kind].bytes;
    }
    let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let share =
        |share| (latency.count() > 0).then(|| latency.percentile(share).as_nanos() as f64 / 1000.0);
    let (state, reason) = DiskState::of(device);
    let read = device.read.as_ref();
    Row {
        guest: device.guest.name.clone(),
        uuid: device.guest.uuid.clone(),
        domid: device.id.domid,
        disk: report::disk(device.id),
        devid: device.id.devid,
        image: read.map(|(_, nodes)| nodes.image.display().to_string()),
        mode: read.map(|(_, nodes)| if nodes.read_only { "ro" } else { "rw" }),
        mapping: read.map(|(node, _)| match node.sharing {
            Sharing::Foreign => "foreign",
            Sharing::Grant => "grant",
        }),
        state,
        reason,
        pid: device.pid,
        limits: figures.limits,
        in_flight: figures.stats.in_flight,
        iops: rate(stats.requests()),
        bytes_per_second: rate(bytes),
        p50_us: share(0.5),
        p99_us: share(0.99),
        errors: figures.stats.errors(),
        host_errors: figures.stats.host_errors,
        requests: figures.stats.requests(),
        mapped_bytes: figures.mapped_bytes,
    }
}
