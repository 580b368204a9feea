use std::time::Duration;

use virtio_mmio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::answers::Outcome;
use super::pipeline::RequestPipeline;
use crate::engine::Engine;
use crate::request::{Action, BlkRequest, OtherAction, RangeKind, Status, decide};

/// Rate limiting: when a request may start.
impl<D: GuestAddressSpace, E: Engine> RequestPipeline<D, E> {
    /// Starts the delayed request if its time has come, else returns how long to wait.
    pub(crate) fn resume<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
    ) -> Option<Duration> {
        let (request, reservation) = self.throttled.take()?;
        let now = self.instant();
        let wait = self.limiter.as_ref().and_then(|limiter| limiter.wait(&reservation, now));
        if wait.is_some() {
            self.throttled = Some((request, reservation));
        } else {
            self.submit_request(batch, request);
        }
        wait
    }

    /// Puts the delayed request back into the available ring, so that it neither starts early nor fails.
    pub(crate) fn put_back<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        let Some((request, reservation)) = self.throttled.take() else { return };
        if let Some(limiter) = &self.limiter {
            limiter.give_back(reservation);
        }
        self.in_flight.forget(&request);
        let BlkRequest { chain, kind, sector, taken_at, .. } = request;
        // Nothing is popped while a request is delayed, so it is the one popped last, as `put_back` needs.
        if let Err(chain) = batch.put_back(chain) {
            let request = BlkRequest { chain, kind, sector, bytes: 0, taken_at, listed: None };
            self.complete_now(batch, request, &Outcome::failed(Status::IoErr));
        }
    }

    /// Starts a request, or delays it and returns for how long.
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
                self.throttled = Some((request, reservation));
                return wait;
            }
        }
        self.submit_request(batch, request);
        None
    }

    /// The bytes that a request counts for: 0 if it will be refused.
    fn bytes_of<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: &mut BlkRequest<D>,
    ) -> u64 {
        let (data_out, data_in) = (request.data_out(), request.data_in());
        match decide(request.kind, request.sector, data_out, data_in, &self.params) {
            Ok(Action::Read { .. }) => data_in,
            Ok(Action::Write { .. }) => data_out,
            Ok(Action::Other(OtherAction::Ranges(
                kind @ (RangeKind::WriteZeroes | RangeKind::SecureErase),
            ))) => {
                let listed = self.in_flight.list(batch, request, kind, &self.params);
                listed.map_or(0, |()| request.bytes)
            }
            _ => 0,
        }
    }
}
