//! The client: keeps a number of requests in flight and times each.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xen_virtio_benches::{Driver, Failed, Kind, Request};

use crate::cell::{Cell, Client, Requests};
use crate::cpu::Meter;
use crate::window::{Latencies, Window};

/// A device that completes nothing for this long hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Looks at the used ring between two looks at the clock, while nothing completes.
const LOOKS: u32 = 1 << 14;

/// What the client needs of a device beside its queues.
pub(crate) trait Port {
    /// Tells the device of new requests in `queue`.
    fn kick(&mut self, queue: usize) -> Result<()>;

    /// Nothing has completed: called between two looks at the used rings.
    fn pause(&mut self);

    /// Returns when there may be an interrupt, `false` if none came for [`PATIENCE`].
    fn sleep(&mut self) -> Result<bool>;
}

/// One queue and the requests in it.
struct Lane<'d, 'm> {
    driver: &'d mut Driver<'m>,
    slots: Vec<Slot>,
    /// Slots that have just completed, then those that are submitted again.
    batch: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Slot {
    since: Instant,
    request: Request,
}

/// Runs `requests` over the first queues of `drivers` for `time`, as `cell` says.
pub(crate) fn run<P: Port>(
    port: &mut P,
    drivers: &mut [Driver<'_>],
    cell: &Cell,
    mut requests: Requests,
    time: Duration,
    meter: &Meter,
) -> Result<Window> {
    let depth = cell.depth / cell.queues;
    let now = Instant::now();
    let mut lanes: Vec<Lane<'_, '_>> = drivers[..cell.queues.into()]
        .iter_mut()
        .map(|driver| {
            let slots = (0..depth).map(|_| Slot { since: now, request: requests.next() });
            Lane { driver, slots: slots.collect(), batch: (0..depth).collect() }
        })
        .collect();
    let mut latencies = Latencies::new()?;
    let before = meter.read()?;
    let start = Instant::now();
    let end = start + time;
    for (index, lane) in lanes.iter_mut().enumerate() {
        if cell.client == Client::Spins {
            lane.driver.disable_interrupts();
        }
        lane.submit(port, index)?;
    }
    let mut now = start;
    while now < end {
        wait(port, &mut lanes, cell.client)?;
        for (index, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.batch.is_empty())
        {
            now = Instant::now();
            for &slot in &lane.batch {
                let Slot { since, request } = &mut lane.slots[usize::from(slot)];
                if cell.op.flushes() && request.kind == Kind::Write {
                    *request = Request { kind: Kind::Flush, sector: 0, len: 0 };
                } else {
                    latencies.record(now - *since);
                    *request = requests.next();
                }
            }
            lane.submit(port, index)?;
        }
    }
    let elapsed = now - start;
    let after = meter.read()?;
    while lanes.iter().any(|lane| lane.driver.in_flight() > 0) {
        wait(port, &mut lanes, Client::Spins)?;
        lanes.iter_mut().for_each(|lane| lane.batch.clear());
    }
    Ok(Window { elapsed, latencies, spent: before.until(&after), in_flight: depth * cell.queues })
}

impl Lane<'_, '_> {
    /// Submits the requests of the slots in the batch, which is empty then.
    #[inline]
    fn submit<P: Port>(&mut self, port: &mut P, index: usize) -> Result<()> {
        for &slot in &self.batch {
            self.driver.submit(slot, self.slots[usize::from(slot)].request);
        }
        let now = Instant::now();
        for &slot in &self.batch {
            let slot = &mut self.slots[usize::from(slot)];
            // A flush is the second half of a request that began with its write.
            if slot.request.kind != Kind::Flush {
                slot.since = now;
            }
        }
        self.batch.clear();
        if self.driver.publish() {
            port.kick(index)?;
        }
        Ok(())
    }
}

/// Returns when a lane's batch holds something that has completed.
#[inline]
fn wait<P: Port>(port: &mut P, lanes: &mut [Lane<'_, '_>], client: Client) -> Result<()> {
    let mut looks = 0;
    let mut since = None;
    loop {
        let mut any = false;
        for lane in lanes.iter_mut() {
            if let Err(Failed { slot, status }) = lane.driver.reap(&mut lane.batch) {
                let request = lane.slots[usize::from(slot)].request;
                bail!("{request:?} ended with status {status}");
            }
            any |= !lane.batch.is_empty();
            if client == Client::Spins {
                lane.driver.disable_interrupts();
            }
        }
        if any {
            return Ok(());
        }
        match client {
            Client::Spins => {
                port.pause();
                looks += 1;
                if looks % LOOKS == 0 && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE
                {
                    bail!("nothing has completed for {PATIENCE:?}");
                }
            }
            Client::Sleeps => {
                // All queues are asked, whatever the first ones say, so that each can wake us.
                let mut nothing = true;
                for lane in lanes.iter_mut() {
                    nothing &= lane.driver.enable_interrupts();
                }
                if nothing && !port.sleep()? {
                    bail!("no interrupt has come for {PATIENCE:?}");
                }
            }
        }
    }
}
