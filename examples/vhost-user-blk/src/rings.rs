//! The rings of a session, and what they rest on.

use std::sync::Arc;

use backend_process::chain;
use tracing::warn;
use vhost::vhost_user;
use virtio_blk_dev::Stats;
use virtio_worker::LogLimit;

use crate::{
    device::Device,
    memory::Memory,
    refusal::Refusal,
    ring::{Common, Ring, RingError},
};

/// All rings of a session, and what they share. Dropping them stops them.
pub(crate) struct Rings {
    rings: Vec<Ring>,
    pub(crate) common: Common,
}

impl Rings {
    /// A ring for each queue of the device, of which nothing is known.
    pub(crate) fn new(device: Arc<Device>) -> Self {
        let ring = |index| Ring::new(index, device.queue_size());
        let rings = (0..device.queues()).map(ring).collect();
        let (memory, limit) = (Memory::default(), LogLimit::default());
        Self { rings, common: Common { device, features: None, memory, limit } }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Wakes the threads of those that run.
    pub(crate) fn wake(&self) {
        self.rings.iter().for_each(Ring::wake);
    }

    /// [Ends](Ring::end) and disables each.
    pub(crate) fn end(&mut self) {
        self.rings.iter_mut().for_each(Ring::end);
    }

    /// The same, and gives what they have done.
    pub(crate) fn finish(&mut self) -> Stats {
        self.end();
        let mut all = Stats::default();
        self.rings.iter().for_each(|ring| all += ring.stats());
        all
    }

    /// Changes one ring, and starts it if it now may run; the message is answered by what becomes of
    /// the change, and the frontend's error descriptor tells of a ring that can't be started.
    pub(crate) fn with_ring<T>(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Ring) -> Result<T, Refusal>,
    ) -> vhost_user::Result<T> {
        let (value, started) = self.change(index, change)?;
        tell(started, &self.common);
        Ok(value)
    }

    /// Likewise, for a message that is there to start the ring: it fails if that can't be started.
    pub(crate) fn start_ring(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Ring) -> Result<(), Refusal>,
    ) -> vhost_user::Result<()> {
        let ((), started) = self.change(index, change)?;
        Ok(started.map_err(Refusal::from)?)
    }

    fn change<T>(
        &mut self,
        index: u32,
        change: impl FnOnce(&mut Ring) -> Result<T, Refusal>,
    ) -> vhost_user::Result<(T, Result<(), RingError>)> {
        let Self { rings, common } = self;
        let queues = rings.len();
        let ring = usize::try_from(index)
            .ok()
            .and_then(|index| rings.get_mut(index))
            .ok_or(Refusal::NoQueue { index, queues })?;
        let value = change(ring).inspect_err(|_| ring.events.err.signal())?;
        Ok((value, ring.update(common)))
    }

    /// Changes what all rings rest on: they are stopped for it, and started again. The change holds
    /// whatever becomes of them: one that can't be started tells its own error descriptor.
    pub(crate) fn with_all_stopped(&mut self, change: impl FnOnce(&mut [Ring], &mut Common)) {
        let Self { rings, common } = self;
        rings.iter_mut().for_each(Ring::stop);
        change(rings, common);
        for ring in rings {
            tell(ring.update(common), common);
        }
    }
}

fn tell(started: Result<(), RingError>, common: &Common) {
    if let Err(error) = started
        && let Some(dropped) = common.limit.allow()
    {
        warn!(error = %chain(&error), dropped, "a queue can't be started, and is stopped until the frontend sets it up again");
    }
}
