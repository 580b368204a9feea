use std::time::Duration;

use virtio_dev::Batch;
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::answers::Outcome;
use super::pipeline::RequestPipeline;
use crate::engine::Engine;
use crate::request::{Action, BlkRequest, OtherAction, RangeKind, Status, decide};

/// Rate limiting: when a request may start.
impl<D: GuestAddressSpace, E: Engine> RequestPipeline<D, E> {
    /// Starts the delayed request if its time has come, else returns how long to wait. If the limits have been set
    /// anew, its time is by the new ones.
    pub(crate) fn resume<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
    ) -> Option<Duration> {
        let changed = self.limits.refresh();
        let (request, reservation) = self.throttled.take()?;
        if changed {
            return self.start_or_delay(batch, request, reservation.give_back());
        }
        let wait = reservation.wait(self.instant());
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
        reservation.give_back();
        self.in_flight.forget(&request);
        // Nothing is popped while a request is delayed.
        self.put_back_request(batch, request);
    }

    /// Puts back a request that was not begun, the one popped last.
    pub(crate) fn put_back_request<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
    ) {
        let BlkRequest { chain, kind, sector, taken_at, .. } = request;
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
        let wait = self.start_or_delay(batch, request, bytes);
        if wait.is_some() {
            self.counters.throttled.add(1);
        }
        wait
    }

    fn start_or_delay<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        bytes: u64,
    ) -> Option<Duration> {
        let now = self.instant();
        let Some(reservation) = self.limits.reserve(now, bytes) else {
            self.submit_request(batch, request);
            return None;
        };
        let wait = reservation.wait(now);
        self.throttled = Some((request, reservation));
        wait
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
