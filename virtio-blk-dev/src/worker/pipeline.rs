use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_dev::{Batch, Chain};
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::active_limits::Reservation;
use super::answers::{Answers, Outcome};
use super::canceller::Canceller;
use super::inflight::{Finished, InFlight, Refused};
use super::limiter_view::LimiterView;
use super::operations::{Operations, is_cancelled};
use crate::clock::Clock;
use crate::device::Params;
use crate::engine::{Command, Completion, Engine, Io};
use crate::request::{
    Action, BlkRequest, Header, OtherAction, RequestKind, Status, decide, lifetime_bytes,
};
use crate::stats::{Counters, HostError};

/// The state of a worker besides its queue: takes each request from its header to its completion.
///
/// It is apart from the queue, so that the queue can be borrowed as a [`Batch`] meanwhile.
pub(crate) struct RequestPipeline<D: GuestAddressSpace, E: Engine> {
    pub(crate) operations: Operations<E>,
    pub(crate) limits: LimiterView,
    pub(crate) counters: Arc<Counters>,
    pub(crate) last_error: Option<HostError>,
    /// The error by which the disk lost its [`Durability`](crate::Durability), if it was this worker's.
    pub(crate) durability_error: Option<HostError>,
    pub(crate) params: Params,
    pub(crate) in_flight: InFlight<D>,
    /// The request that the rate limiter delays.
    pub(crate) throttled: Option<(BlkRequest<D>, Reservation)>,
    pub(super) answers: Answers,
    /// Bytes of data submitted since the last publication.
    pub(super) unpublished_bytes: u64,
    /// Whether the write cache was on at the last call of `handle_cache_switch`.
    pub(super) write_back: bool,
    pub(super) clock: Clock,
    /// The last reading of the clock: made when answers were published, or at the start of an iteration
    /// if there were none.
    pub(super) now: u64,
}

impl<D: GuestAddressSpace, E: Engine> RequestPipeline<D, E> {
    pub(crate) fn new(queue_size: u16, engine: E, params: Params, counters: Arc<Counters>) -> Self {
        let in_flight = InFlight::new(queue_size);
        let (live, canceller) = (Arc::clone(&params.live), in_flight.canceller.clone());
        Self {
            operations: Operations::new(queue_size, engine, live, canceller),
            limits: LimiterView::default(),
            last_error: None,
            durability_error: None,
            write_back: params.live.write_back(),
            params,
            in_flight,
            throttled: None,
            answers: Answers::new(queue_size, Arc::clone(&counters)),
            clock: counters.stall.clock(),
            counters,
            unpublished_bytes: 0,
            now: 0,
        }
    }

    pub(crate) fn set_canceller(&mut self, canceller: Canceller) {
        self.in_flight.canceller = canceller.clone();
        self.operations.canceller = canceller;
    }

    /// The number of requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.count
    }

    /// Bytes of data submitted since the last publication.
    pub(crate) fn unpublished_bytes(&self) -> u64 {
        self.unpublished_bytes
    }

    /// Whether completions wait to be processed.
    pub(crate) fn has_completions(&mut self) -> bool {
        if self.operations.engine.in_flight() > 0 {
            self.operations.poll();
        }
        self.operations.has_finished()
    }

    /// Reads the clock.
    pub(crate) fn read_clock(&mut self) -> Instant {
        self.now = self.clock.nanos();
        self.instant()
    }

    /// The time of the last reading of the clock.
    pub(crate) fn instant(&self) -> Instant {
        self.clock.at(self.now)
    }

    /// Flushes if the driver has turned the write cache off since the last call.
    pub(crate) fn handle_cache_switch(&mut self) {
        let write_back = self.params.live.write_back();
        if self.write_back && !write_back {
            // What was completed before the switch is not stable yet, and the driver will not flush it:
            // it now takes every completed write for stable (virtio 1.2 §5.2.6.2).
            self.count_begun(1);
            self.operations.submit_internal_flush(self.in_flight.internal_flush());
        }
        self.write_back = write_back;
    }

    /// Starts a request. Returns how long to wait if the rate limiter delays it.
    #[inline]
    pub(crate) fn start_request<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        chain: Chain<D>,
    ) -> Option<Duration> {
        let header = Header::read(batch, &chain);
        let (kind, sector) =
            header.map_or((RequestKind::Other, 0), |header| (header.kind(), header.sector.get()));
        let taken_at = self.now;
        let request = BlkRequest { chain, kind, sector, bytes: 0, taken_at, listed: None };
        // A request without room for the status can't be answered: it is returned without being
        // carried out.
        if header.is_none() || request.chain.writable_len() == 0 {
            self.complete_now(batch, request, &Outcome::failed(Status::IoErr));
            return None;
        }
        if self.limits.is_limited() {
            return self.admit(batch, request);
        }
        self.submit_request(batch, request);
        None
    }

    /// Queues the operation of a request for the engine, or answers it at once.
    #[inline]
    pub(crate) fn submit_request<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut request: BlkRequest<D>,
    ) {
        // Read for each request: once a driver has turned the cache off, the writes that it submits
        // from then on have to be stable when they complete (virtio 1.2 §5.2.6.2).
        let durable = !self.params.live.write_back();
        let (data_out, data_in) = (request.data_out(), request.data_in());
        let action = decide(request.kind, request.sector, data_out, data_in, &self.params);
        let (command, offset, len) = match action {
            Ok(Action::Read { offset }) => (Command::Read, offset, data_in),
            Ok(Action::Write { offset }) => (Command::Write, offset, data_out),
            Ok(Action::Flush) => (Command::Flush, 0, 0),
            Ok(Action::Other(other)) => {
                return self.submit_other(batch, request, Ok(other), durable);
            }
            Err(status) => return self.submit_other(batch, request, Err(status), durable),
        };
        let durable = durable && command == Command::Write;
        request.bytes = len;
        self.unpublished_bytes = self.unpublished_bytes.saturating_add(len);
        let io = self.in_flight.start(batch, request, command, durable, (offset, len));
        self.enqueue(batch, io);
    }

    #[inline(never)]
    fn submit_other<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        action: Result<OtherAction, Status>,
        durable: bool,
    ) {
        let outcome = match action {
            Ok(OtherAction::Ranges(kind)) => {
                let io = self.in_flight.start_ranges(batch, request, kind, durable, &self.params);
                return self.enqueue(batch, io);
            }
            Ok(OtherAction::GetId) => Outcome::copied(&request, self.params.serial.as_bytes()),
            Ok(OtherAction::GetLifetime) => self.lifetime(&request),
            Err(status) => Outcome::failed(status),
        };
        self.complete_now(batch, request, &outcome);
    }

    /// Answers a request that needs no engine. Operations taken earlier are submitted first, as with a
    /// synchronous engine requests are used in order (virtio 1.2 §2.7.9.1).
    #[cold]
    pub(crate) fn complete_now<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        outcome: &Outcome,
    ) {
        if self.operations.pending() > 0 {
            self.submit_and_reap(batch);
        }
        self.answers.answer(batch, request, outcome);
    }

    #[inline]
    fn enqueue<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        io: Result<Io, Option<Refused<D>>>,
    ) {
        match io {
            Ok(io) => self.operations.push(io),
            Err(Some(Refused(request, status))) => {
                let outcome = Outcome::carried_out(&request, status);
                self.complete_now(batch, request, &outcome);
            }
            Err(None) => {}
        }
    }

    /// Submits the pending operations to the engine, and answers what is finished.
    ///
    /// This is done for a batch at once, not for each request: alternating between the ring and the
    /// kernel would evict the one's working set from the processor's caches for the other's.
    fn submit_and_reap<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        let pending = self.operations.pending();
        if pending > 0 {
            self.count_begun(pending);
        }
        self.operations.submit_pending();
        // The next part of a list of ranges has to be committed, too: nothing else would do so.
        while self.reap(batch) {
            self.operations.engine.commit();
        }
    }

    fn lifetime(&mut self, request: &BlkRequest<D>) -> Outcome {
        self.count_begun(1);
        match self.operations.engine.lifetime() {
            Ok(lifetime) => Outcome::copied(request, &lifetime_bytes(&lifetime)),
            Err(source) => {
                self.counters.host_errors.add(1);
                let BlkRequest { kind, sector, .. } = *request;
                self.last_error = Some(HostError { kind, sector, source });
                Outcome::failed(Status::IoErr)
            }
        }
    }

    /// Submits the pending operations, answers what is finished, and publishes the answers.
    pub(crate) fn flush_and_publish<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        self.submit_and_reap(batch);
        self.unpublished_bytes = 0;
        let begun = self.operations.in_flight();
        self.count_in_flight(begun);
        let answered = self.answers.publish(batch, &self.clock);
        if let Some(now) = answered {
            self.now = now;
        }
        if begun == 0 {
            self.counters.stall.stop();
        } else if answered.is_some() {
            self.counters.stall.restart(self.now);
        }
    }

    /// Counts operations before the engine is given them: one that completes them synchronously returns only when its
    /// storage answers, and what the guest waits for meanwhile has to be seen.
    #[inline]
    fn count_begun(&self, operations: usize) {
        if self.counters.stall.begin(self.now) {
            self.count_in_flight(operations);
        }
    }

    #[inline]
    fn count_in_flight(&self, begun: usize) {
        let delayed = u64::from(self.throttled.is_some());
        self.counters.in_flight.set(delayed.saturating_add(begun as u64));
    }

    /// Answers what the engine has finished. Returns whether further operations were submitted, so that
    /// there may be more completions.
    pub(crate) fn reap<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) -> bool {
        let mut more = self.operations.poll();
        while let Some(completion) = self.operations.next_finished() {
            more |= self.on_completion(batch, completion);
        }
        more
    }

    /// Answers a request whose operation is finished, or submits its next operation. Returns whether
    /// the engine has that one in flight.
    #[inline]
    pub(super) fn on_completion<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        completion: Completion,
    ) -> bool {
        let Completion { io, result } = &completion;
        let is_done = io.is_plain() || self.operations.is_ok(io) && !self.in_flight.has_more(io);
        if result.is_err() || !is_done {
            return self.on_completion_slow(batch, completion);
        }
        if let Some(request) = self.in_flight.finish_last(completion.io) {
            let outcome = Outcome::carried_out(&request, Status::Ok);
            self.answers.answer(batch, request, &outcome);
        }
        false
    }

    /// As [`on_completion`](Self::on_completion), for an operation that failed, or isn't the last of its
    /// request. As long as the engine completes the next one synchronously this continues with it, which
    /// keeps the order for `VIRTIO_F_IN_ORDER` (virtio 1.2 §2.7.9.1).
    #[inline(never)]
    fn on_completion_slow<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut completion: Completion,
    ) -> bool {
        loop {
            let Completion { io, result } = completion;
            let is_ok = result.is_ok() && self.operations.is_ok(&io);
            let tag = io.tag();
            let finished = self.in_flight.finish(io, !is_ok);
            let status = match result {
                Ok(()) if is_ok => Status::Ok,
                Ok(()) => Status::IoErr,
                Err(error) if is_cancelled(&error) => Status::IoErr,
                Err(source) => {
                    self.record_host_error(tag, &finished, source);
                    Status::IoErr
                }
            };
            match finished {
                Finished::Request(request) => {
                    let outcome = Outcome::carried_out(&request, status);
                    self.answers.answer(batch, request, &outcome);
                    return false;
                }
                // Only a part of it was done.
                Finished::Cancelled(request) => {
                    self.answers.answer(batch, request, &Outcome::failed(Status::IoErr));
                    return false;
                }
                Finished::Next(io) => match self.operations.submit(io) {
                    Some(next) => completion = next,
                    None => return true,
                },
                Finished::None => return false,
            }
        }
    }

    #[cold]
    fn record_host_error(&mut self, tag: u64, finished: &Finished<D>, source: io::Error) {
        let (kind, sector) = match finished {
            Finished::Request(request) | Finished::Cancelled(request) => {
                (request.kind, request.sector)
            }
            Finished::Next(_) | Finished::None => (RequestKind::Flush, 0),
        };
        self.counters.host_errors.add(1);
        let error = HostError { kind, sector, source };
        if self.operations.is_durability_error(tag) {
            self.durability_error = Some(error.again());
        }
        self.last_error = Some(error);
    }
}

impl<D: GuestAddressSpace, E: Engine> Drop for RequestPipeline<D, E> {
    /// Waits for the engine before the memory of what is in flight is unmapped. The queue is gone, so no
    /// request is answered.
    fn drop(&mut self) {
        let Self { operations, in_flight, counters, .. } = self;
        // After a panic there may be operations that weren't submitted, or completions that weren't
        // processed.
        operations.drain_all().for_each(|io| drop(in_flight.finish(io, true)));
        // `in_flight` leaks the memory of operations that don't come back.
        let _ =
            operations.engine.drain(&mut |completion| drop(in_flight.finish(completion.io, true)));
        // Nobody waits for what hasn't come back.
        counters.in_flight.set(0);
        counters.stall.stop();
    }
}
