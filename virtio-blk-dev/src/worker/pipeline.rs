use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_mmio_dev::{Batch, Chain};
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::answers::{Answers, Outcome};
use super::canceller::Canceller;
use super::clock::Clock;
use super::inflight::{Finished, InFlight, Refused};
use super::operations::{Operations, is_cancelled};
use super::rate_limit::{RateLimiter, Reservation};
use crate::device::Params;
use crate::engine::{Command, Completion, Engine, Io};
use crate::request::BlkRequest;
use crate::request::{Action, Header, RequestKind, Status, decide, lifetime_bytes};
use crate::stats::{Counters, HostError};

/// A worker without its queue.
pub(crate) struct Requests<D: GuestAddressSpace, E: Engine> {
    pub(crate) operations: Operations<E>,
    pub(crate) limiter: Option<Arc<RateLimiter>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) last_error: Option<HostError>,
    /// What made the disk lose its [`Durability`](crate::Durability), if this worker met it.
    pub(crate) loss: Option<HostError>,
    pub(crate) params: Params,
    pub(crate) in_flight: InFlight<D>,
    /// Held back by the limiter until its turn.
    pub(crate) held: Option<(BlkRequest<D>, Reservation)>,
    answers: Answers,
    /// Bytes of data begun since the last publication.
    begun_bytes: u64,
    /// The cache was on when last looked at.
    write_back: bool,
    clock: Clock,
    /// What the clock showed when last looked at: when answers were published, or when a turn began
    /// before which there were none.
    now: u64,
}

impl<D: GuestAddressSpace, E: Engine> Requests<D, E> {
    pub(crate) fn new(queue_size: u16, engine: E, params: Params, counters: Arc<Counters>) -> Self {
        let in_flight = InFlight::new(queue_size);
        let (live, canceller) = (Arc::clone(&params.live), in_flight.canceller.clone());
        Self {
            operations: Operations::new(queue_size, engine, live, canceller),
            limiter: None,
            last_error: None,
            loss: None,
            write_back: params.live.write_back(),
            params,
            in_flight,
            held: None,
            answers: Answers::new(queue_size, Arc::clone(&counters)),
            counters,
            begun_bytes: 0,
            clock: Clock::new(),
            now: 0,
        }
    }

    pub(crate) fn set_canceller(&mut self, canceller: Canceller) {
        self.in_flight.canceller = canceller.clone();
        self.operations.canceller = canceller;
    }

    /// Requests answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.count
    }

    /// Bytes of data begun and not published.
    pub(crate) fn begun_bytes(&self) -> u64 {
        self.begun_bytes
    }

    /// Whether the engine has finished something.
    pub(crate) fn has_completions(&mut self) -> bool {
        if self.operations.engine.in_flight() > 0 {
            self.operations.poll();
        }
        self.operations.has_finished()
    }

    /// Looks at the clock: at what time it is.
    pub(crate) fn look_at_clock(&mut self) -> Instant {
        self.now = self.clock.nanos();
        self.instant()
    }

    /// What time it was when the clock was last looked at.
    pub(crate) fn instant(&self) -> Instant {
        self.clock.at(self.now)
    }

    /// Looks at what may have changed since the last time.
    pub(crate) fn begin(&mut self) {
        let write_back = self.params.live.write_back();
        if self.write_back && !write_back {
            // From here on the driver takes what is answered for stable, and what was answered
            // before the switch it can no longer flush (virtio 1.2 §5.2.6.2).
            self.operations.flush_own(self.in_flight.own_flush());
        }
        self.write_back = write_back;
    }

    /// Begins a request, unless that must wait: for how long.
    #[inline]
    pub(crate) fn start<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        chain: Chain<D>,
    ) -> Option<Duration> {
        let header = Header::read(batch, &chain);
        let (kind, sector) =
            header.map_or((RequestKind::Other, 0), |header| (header.kind(), header.sector.get()));
        let taken_at = self.now;
        let request = BlkRequest { chain, kind, sector, bytes: 0, taken_at, listed: None };
        // Without a place for the status the driver can't learn how the request went: it is
        // returned, and nothing else is done.
        if header.is_none() || request.chain.writable_len() == 0 {
            self.answer_at_once(batch, request, &Outcome::failed(Status::IoErr));
            return None;
        }
        if self.limiter.is_some() {
            return self.admit(batch, request);
        }
        self.carry_out(batch, request);
        None
    }

    /// Makes a request ready for the engine, or answers it at once.
    #[inline]
    pub(crate) fn carry_out<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        mut request: BlkRequest<D>,
    ) {
        // Not as of the turn's beginning: a driver that has turned the cache off takes what it asks
        // for from then on for stable when it is answered (virtio 1.2 §5.2.6.2).
        let durable = !self.params.live.write_back();
        let (data_out, data_in) = (request.data_out(), request.data_in());
        let action = decide(request.kind, request.sector, data_out, data_in, &self.params);
        let (command, offset, len) = match action {
            Ok(Action::Read { offset }) => (Command::Read, offset, data_in),
            Ok(Action::Write { offset }) => (Command::Write, offset, data_out),
            Ok(Action::Flush) => (Command::Flush, 0, 0),
            _ => return self.carry_out_rare(batch, request, action, durable),
        };
        let durable = durable && command == Command::Write;
        request.bytes = len;
        self.begun_bytes = self.begun_bytes.saturating_add(len);
        let io = self.in_flight.start(batch, request, command, durable, (offset, len));
        self.make_ready(batch, io);
    }

    #[inline(never)]
    fn carry_out_rare<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        action: Result<Action, Status>,
        durable: bool,
    ) {
        let outcome = match action {
            Ok(Action::Ranges(kind)) => {
                let io = self.in_flight.start_ranges(batch, request, kind, durable, &self.params);
                return self.make_ready(batch, io);
            }
            Ok(Action::GetId) => Outcome::copied(&request, self.params.serial.as_bytes()),
            Ok(Action::GetLifetime) => self.lifetime(&request),
            // The others were carried out.
            Ok(Action::Read { .. } | Action::Write { .. } | Action::Flush) => {
                Outcome::failed(Status::IoErr)
            }
            Err(status) => Outcome::failed(status),
        };
        self.answer_at_once(batch, request, &outcome);
    }

    /// Answers what no engine has a part in, but not before what was taken earlier: an engine that
    /// finishes where it is submitted to keeps the order (virtio 1.2 §2.7.9.1).
    #[cold]
    pub(crate) fn answer_at_once<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        request: BlkRequest<D>,
        outcome: &Outcome,
    ) {
        if self.operations.has_taken() {
            self.carry_on(batch);
        }
        self.answers.answer(batch, request, outcome);
    }

    #[inline]
    fn make_ready<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        io: Result<Io, Option<Refused<D>>>,
    ) {
        match io {
            Ok(io) => self.operations.take(io),
            Err(Some(Refused(request, status))) => {
                let outcome = Outcome::carried_out(&request, status);
                self.answer_at_once(batch, request, &outcome);
            }
            Err(None) => {}
        }
    }

    /// Hands what was taken to the engine, has it begun, and answers what is finished.
    ///
    /// Only now, when all of a batch is known: so the processor has at hand what taking requests and
    /// answering them needs, and the kernel in between, instead of each for one request by turns.
    fn carry_on<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        self.operations.hand_over();
        // What comes next of a list of ranges must be begun, too: nothing else would tell of it.
        while self.reap(batch) {
            self.operations.engine.commit();
        }
    }

    fn lifetime(&mut self, request: &BlkRequest<D>) -> Outcome {
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

    /// Has begun what was taken, answers what is finished, and publishes the answers.
    pub(crate) fn finish_part<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        self.carry_on(batch);
        self.begun_bytes = 0;
        let held = u64::from(self.held.is_some());
        self.counters.in_flight.set(held.saturating_add(self.operations.in_flight() as u64));
        if let Some(now) = self.answers.publish(batch, &self.clock) {
            self.now = now;
        }
    }

    /// Answers what the engine has finished; whether more was submitted, so that it may have more.
    pub(crate) fn reap<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) -> bool {
        let mut more = self.operations.poll();
        while let Some(completion) = self.operations.next_finished() {
            more |= self.take_back(batch, completion);
        }
        more
    }

    /// Answers a request whose operation is finished, or goes on with its next one. Whether the
    /// engine was left with a next one.
    #[inline]
    fn take_back<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        completion: Completion,
    ) -> bool {
        let Completion { io, result } = &completion;
        let is_done = io.is_plain() || self.operations.is_ok(io) && !self.in_flight.has_more(io);
        if result.is_err() || !is_done {
            return self.take_back_other(batch, completion);
        }
        if let Some(request) = self.in_flight.finish_last(completion.io) {
            let outcome = Outcome::carried_out(&request, Status::Ok);
            self.answers.answer(batch, request, &outcome);
        }
        false
    }

    /// As [`take_back`](Self::take_back), of an operation that failed, or isn't the last of its
    /// request. If the next one is finished at once, this goes on to the end, as `IN_ORDER` wants it
    /// (virtio 1.2 §2.7.9.1).
    #[inline(never)]
    fn take_back_other<M: GuestMemory>(
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
                    self.failed(tag, &finished, source);
                    Status::IoErr
                }
            };
            match finished {
                Finished::Request(request) => {
                    let outcome = Outcome::carried_out(&request, status);
                    self.answers.answer(batch, request, &outcome);
                    return false;
                }
                // Pieces of it are done, and others aren't.
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
    fn failed(&mut self, tag: u64, finished: &Finished<D>, source: io::Error) {
        let (kind, sector) = match finished {
            Finished::Request(request) | Finished::Cancelled(request) => {
                (request.kind, request.sector)
            }
            Finished::Next(_) | Finished::None => (RequestKind::Flush, 0),
        };
        self.counters.host_errors.add(1);
        let error = HostError { kind, sector, source };
        if self.operations.is_loss(tag) {
            self.loss = Some(error.again());
        }
        self.last_error = Some(error);
    }
}

impl<D: GuestAddressSpace, E: Engine> Drop for Requests<D, E> {
    /// Unmaps the memory of what is in flight when the engine is done with it; the queue is gone,
    /// so nobody gets an answer.
    fn drop(&mut self) {
        let Self { operations, in_flight, .. } = self;
        // What a panic left between being taken and being begun, or between being finished and
        // being answered.
        operations.take_all().for_each(|io| drop(in_flight.finish(io, true)));
        // What doesn't come back is leaked by `in_flight`.
        let _ =
            operations.engine.drain(&mut |completion| drop(in_flight.finish(completion.io, true)));
    }
}
