use std::time::Duration;

use virtio_mmio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::answers::Outcome;
use super::pipeline::Requests;
use crate::engine::Engine;
use crate::request::BlkRequest;
use crate::request::RangeKind;
use crate::request::{Action, Status, decide};

/// The requests of a disk that has a rate limit: when they may begin.
impl<D: GuestAddressSpace, E: Engine> Requests<D, E> {
    /// Begins what was held back, if it may now; else for how long it must wait.
    pub(crate) fn resume<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
    ) -> Option<Duration> {
        let (request, reservation) = self.held.take()?;
        let now = self.instant();
        let wait = self.limiter.as_ref().and_then(|limiter| limiter.wait(&reservation, now));
        if wait.is_some() {
            self.held = Some((request, reservation));
        } else {
            self.carry_out(batch, request);
        }
        wait
    }

    /// Leaves what was held back to the driver, as if it had not been taken: it is neither begun
    /// before its reservation nor failed.
    pub(crate) fn put_back<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        let Some((request, reservation)) = self.held.take() else { return };
        if let Some(limiter) = &self.limiter {
            limiter.give_back(reservation);
        }
        self.in_flight.forget(&request);
        let BlkRequest { chain, kind, sector, taken_at, .. } = request;
        // Nothing is popped while a request is held, so that it is always the last one.
        if let Err(chain) = batch.put_back(chain) {
            let request = BlkRequest { chain, kind, sector, bytes: 0, taken_at, listed: None };
            self.answer_at_once(batch, request, &Outcome::failed(Status::IoErr));
        }
    }

    /// Begins a request of a disk that has a limit, unless that must wait: for how long.
    pub(crate) fn admit<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut request: BlkRequest<D>,
    ) -> Option<Duration> {
        let bytes = self.bytes_of(batch, &mut request);
        if let Some(limiter) = &self.limiter {
            let now = self.instant();
            let reservation = limiter.reserve(now, bytes);
            let wait = limiter.wait(&reservation, now);
            if wait.is_some() {
                self.counters.throttled.add(1);
                self.held = Some((request, reservation));
                return wait;
            }
        }
        self.carry_out(batch, request);
        None
    }

    /// What a request costs the limit on bytes: nothing, if it is refused.
    fn bytes_of<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: &mut BlkRequest<D>,
    ) -> u64 {
        let (data_out, data_in) = (request.data_out(), request.data_in());
        match decide(request.kind, request.sector, data_out, data_in, &self.params) {
            Ok(Action::Read { .. }) => data_in,
            Ok(Action::Write { .. }) => data_out,
            Ok(Action::Ranges(kind @ (RangeKind::WriteZeroes | RangeKind::SecureErase))) => {
                let listed = self.in_flight.list(batch, request, kind, &self.params);
                listed.map_or(0, |()| request.bytes)
            }
            _ => 0,
        }
    }
}
