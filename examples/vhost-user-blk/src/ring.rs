//! One ring, as far as the frontend has told of it, and its thread while it runs.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use backend_process::chain;
use tracing::{debug, warn};
use virtio_blk_dev::{Canceller, Stats};
use virtio_dev::{QueueConfig, feature};
use virtio_worker::LogLimit;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    device::Device,
    engine::QueueEngine,
    events::Events,
    memory::Memory,
    worker::{Ended, Job, StartError, WorkerThread},
};

/// Why a ring can't be started, where that is more than a mistake of the guest's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RingError {
    #[error(
        "queue {index}: the {part} at the frontend's address {addr:#x} is not in memory that it shares"
    )]
    Address { index: u16, part: &'static str, addr: u64 },
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Where the parts of a ring are in the frontend's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) descriptors: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
}

/// What all rings of a session share.
pub(crate) struct Common {
    pub(crate) device: Arc<Device>,
    /// The negotiated features, once there are any.
    pub(crate) features: Option<u64>,
    pub(crate) memory: Memory,
    pub(crate) limit: LogLimit,
}

/// A ring. It runs while it has everything it needs and is enabled; dropping it stops it.
pub(crate) struct Ring {
    index: u16,
    /// What the device offers.
    size_max: u16,
    pub(crate) size: u16,
    pub(crate) addresses: Option<Addresses>,
    /// Next available entry to take, while it doesn't run; `None`: the frontend gave one that can't
    /// be.
    base: Option<u16>,
    pub(crate) enabled: bool,
    pub(crate) events: Events,
    kick: Option<OwnedFd>,
    worker: Option<WorkerThread>,
    /// While it doesn't run, if it has run before.
    engine: Option<QueueEngine>,
    /// It can't be started as it was set up.
    refused: bool,
    /// Its thread ended by itself, and with it requests that it had taken.
    failed: bool,
    stats: Stats,
}

impl Ring {
    pub(crate) fn new(index: u16, size_max: u16) -> Self {
        Self {
            index,
            size_max,
            size: 0,
            addresses: None,
            base: Some(0),
            enabled: false,
            events: Events::default(),
            kick: None,
            worker: None,
            engine: None,
            refused: false,
            failed: false,
            stats: Stats::default(),
        }
    }

    /// Takes the descriptor that the driver's kicks come by.
    pub(crate) fn set_kick(&mut self, kick: Option<File>) {
        self.stop();
        self.kick = kick.map(OwnedFd::from);
    }

    /// Next available entry to take, as of its last stop.
    pub(crate) fn base(&self) -> Option<u16> {
        self.base
    }

    /// Has the ring begin anew at `base`, or not at all.
    pub(crate) fn set_base(&mut self, base: Option<u16>) {
        self.stop();
        (self.base, self.failed) = (base, false);
    }

    /// Starts the ring if it may run and doesn't. One that can't is refused: it stays stopped until
    /// it is set up anew, and the frontend's error descriptor says so.
    pub(crate) fn update(&mut self, common: &Common) -> Result<(), RingError> {
        let Self { worker: None, enabled: true, refused: false, failed: false, .. } = self else {
            return Ok(());
        };
        self.start(common).inspect_err(|_| {
            self.refused = true;
            self.events.err.signal();
        })
    }

    fn start(&mut self, common: &Common) -> Result<(), RingError> {
        let (Some(features), Some(addresses), Some(base), Some(kick)) =
            (common.features, self.addresses, self.base, &self.kick)
        else {
            return Ok(());
        };
        if self.size == 0 || common.memory.is_empty() {
            return Ok(());
        }
        let job = Job {
            device: Arc::clone(&common.device),
            config: self.config(addresses, base, features, &common.memory)?,
            memory: Arc::clone(common.memory.map()),
            events: self.events.clone(),
            limit: common.limit.clone(),
            canceller: Canceller::default(),
        };
        debug!(config = ?job.config, "starting a queue");
        let engine = self.engine.take().filter(|engine| engine.queue_size == self.size);
        let engine =
            engine.unwrap_or_else(|| QueueEngine::new(&common.device, self.size, &common.limit));
        let started = WorkerThread::start(job, kick.as_fd(), engine).map_err(|(error, engine)| {
            self.engine = engine;
            error
        });
        match started {
            Ok(worker) => self.worker = Some(worker),
            Err(StartError::Queue(error)) => {
                self.refused = true;
                if let Some(dropped) = common.limit.allow() {
                    warn!(error = %chain(&error), dropped, "the guest's driver set up a queue that can't be served: it is stopped until the driver sets it up again");
                }
            }
            Err(error) => return Err(error.into()),
        }
        // An interrupt of the time before, with another descriptor, may never have arrived.
        self.events.call.signal();
        Ok(())
    }

    /// Stops and disables the ring of a driver that waits for no answers any more: it has reset the
    /// device, or its frontend is gone. Lists of ranges, which may take minutes, end early. A ring
    /// that only [stops](Self::stop), as for GET_VRING_BASE, carries them out to their end: its driver
    /// would see the error.
    pub(crate) fn end(&mut self) {
        if let Some(worker) = &self.worker {
            worker.cancel();
        }
        self.stop();
        self.enabled = false;
    }

    /// Finishes what is in flight, and keeps where the ring was left.
    pub(crate) fn stop(&mut self) {
        self.refused = false;
        if let Some(worker) = self.worker.take() {
            let Ended { report, failed, engine } = worker.stop();
            (self.failed, self.engine) = (failed, engine);
            if let Some(report) = report {
                self.base = Some(report.positions.next_avail);
                self.stats += &report.stats;
            }
            debug!(queue = self.index, base = self.base, "stopped a queue");
        }
    }

    /// Has the queue's thread look at what has changed.
    pub(crate) fn wake(&self) {
        if let Some(worker) = &self.worker {
            worker.wake();
        }
    }

    /// What it has done, as of its last stop.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    fn config(
        &self,
        addresses: Addresses,
        base: u16,
        features: u64,
        memory: &Memory,
    ) -> Result<QueueConfig, RingError> {
        let index = self.index;
        let guest =
            |part, addr| memory.guest_address(addr).ok_or(RingError::Address { index, part, addr });
        let used_ring = guest("used ring", addresses.used)?;
        Ok(QueueConfig {
            index,
            size: self.size,
            size_max: self.size_max,
            desc_table: guest("descriptor table", addresses.descriptors)?,
            avail_ring: guest("available ring", addresses.avail)?,
            used_ring,
            event_idx: features & feature::EVENT_IDX != 0,
            indirect: features & feature::INDIRECT_DESC != 0,
            next_avail: base,
            // The protocol has no message for it: the ring itself tells, whoever served it last.
            next_used: used_ring
                .checked_add(2)
                .and_then(|addr| memory.map().read_obj(GuestAddress(addr)).ok())
                .map_or(0, u16::from_le),
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Report;
    use virtio_dev::Positions;

    fn with(worker: WorkerThread) -> Ring {
        let mut ring = Ring::new(0, 16);
        ring.set_base(Some(3));
        ring.enabled = true;
        ring.worker = Some(worker);
        ring
    }

    #[test]
    fn long_requests_end_early_where_the_driver_is_gone_and_not_where_it_waits() {
        type Way = fn(&mut Ring);
        let stops: [(Way, bool); 5] = [
            (Ring::end, true),
            (Ring::stop, false),
            (|ring| ring.set_kick(None), false),
            (|ring| ring.set_base(Some(0)), false),
            (|ring| drop(std::mem::replace(ring, Ring::new(0, 16))), true),
        ];
        for (nth, (stop, is_cancelled)) in stops.into_iter().enumerate() {
            let worker = WorkerThread::ended(Some(Report::default()), false);
            let canceller = worker.canceller();
            let mut ring = with(worker);
            stop(&mut ring);
            assert_eq!(canceller.is_cancelled(), is_cancelled, "way {nth}");
        }
    }

    #[test]
    fn a_ring_whose_thread_failed_stays_where_it_was_left_until_it_begins_anew() {
        let positions = Positions { next_avail: 7, ..Positions::default() };
        let report = Report { positions, ..Report::default() };
        for (report, base) in [(Some(report), 7), (None, 3)] {
            let mut ring = with(WorkerThread::ended(report, true));
            ring.set_kick(None);
            assert_eq!((ring.base(), ring.failed), (Some(base), true));
            ring.stop();
            assert!(ring.failed, "a change of the memory would start it again");
            ring.set_base(Some(9));
            assert_eq!((ring.base(), ring.failed), (Some(9), false));
        }
    }
}
