//! What a disk has done so far.

use serde::{Deserialize, Serialize};
use tracing::info;
use virtio_blk_dev::{OpStats, RateLimits, RequestKind, Stats};
use xen_virtio_backend::node::DeviceId;

/// The kinds of requests that are told of one by one, and what they are called.
pub const OPS: [(&str, RequestKind); 6] = [
    ("read", RequestKind::Read),
    ("write", RequestKind::Write),
    ("flush", RequestKind::Flush),
    ("discard", RequestKind::Discard),
    ("write_zeroes", RequestKind::WriteZeroes),
    ("secure_erase", RequestKind::SecureErase),
];

/// What a disk has done up to some time. It goes on over resets of the device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The guest's driver has initialised the disk and not reset it.
    pub driver: bool,
    /// The limits that hold.
    pub limits: RateLimits,
    /// Bytes of the guest's memory that are mapped, for all disks of its process together.
    pub mapped_bytes: u64,
    /// Accesses to the guest's memory that failed as `--map-budget` had no room, for all disks of its process.
    pub map_refusals: u64,
    /// Accesses of the guest to the registers.
    pub ioreqs: u64,
    /// Interrupts that were raised.
    pub interrupts: u64,
    /// A flush of the image has failed, so that none succeeds any more.
    pub flush_failed: bool,
    /// The sum over all queues.
    pub stats: Stats,
}

impl Figures {
    /// Logs how long each kind of request took.
    pub(crate) fn report_latencies(&self, id: DeviceId) {
        for (op, kind) in OPS {
            let OpStats { requests, bytes, errors, latency } = &self.stats[kind];
            if *requests > 0 {
                let micros = |share| latency.percentile(share).as_micros();
                info!(
                    %id,
                    op,
                    requests,
                    bytes,
                    errors,
                    p50_us = micros(0.5),
                    p99_us = micros(0.99),
                    p999_us = micros(0.999),
                    "disk latency"
                );
            }
        }
    }
}

impl xen_virtio_backend::Figures for Figures {
    fn add(&mut self, other: &Self) {
        // A guest that has taken over its process tells any number.
        self.ioreqs = self.ioreqs.saturating_add(other.ioreqs);
        self.interrupts = self.interrupts.saturating_add(other.interrupts);
        self.stats += &other.stats;
    }
}
