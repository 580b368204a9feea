use virtio_dev::{Batch, Chain};
use vm_memory::{GuestAddressSpace, GuestMemory};

use super::Worker;
use super::operations::Left;
use super::pipeline::RequestPipeline;
use super::poller::Poller;
use crate::engine::Engine;
use crate::request::{BlkRequest, Header, RequestKind};

/// How much is served [inline](Worker::serve_inline) at a time, by a thread that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlineLimit {
    /// If more requests than these are there, the queue's thread serves them.
    pub requests: u16,
    /// Bytes of data.
    pub bytes: u64,
}

impl InlineLimit {
    /// A request that comes alone. Several are left to the queue's thread, which serves them while the other threads
    /// go on.
    pub const LONE: Self = Self { requests: 1, bytes: 64 << 10 };
    /// For a process with one processor: its threads take turns on that, so that a way from one to the other gains
    /// nothing.
    pub const ONE_PROCESSOR: Self = Self { requests: 32, bytes: 128 << 10 };
}

/// How often it is looked for further requests when all were served.
const ROUNDS: u32 = 4;
impl<R: GuestAddressSpace, D: GuestAddressSpace, E: Engine> Worker<R, D, E> {
    /// Serves a few requests on a thread that must not block, such as the one that passes the driver's notifications
    /// on, while the queue's own thread sleeps after [`Pause::Idle`](crate::Pause::Idle).
    ///
    /// Returns true if the queue is idle again, with notifications enabled, and false if the queue's thread has to
    /// [work](Self::work): because there is more than `limit` allows, or a request that is neither a read nor a write,
    /// [can't be carried out at once](Engine::try_alone), or must be stable when it completes; because there is a rate
    /// limit; or because `poller` finds that polling would pay.
    pub fn serve_inline(&mut self, limit: InlineLimit, poller: &mut Poller) -> bool {
        let Self { queue, pipeline, inline_rest, .. } = self;
        if !pipeline.is_idle() || queue.is_broken() || !inline_rest.is_over() {
            return false;
        }
        pipeline.read_clock();
        poller.busy(pipeline.instant());
        let begun = pipeline.now;
        let is_idle = queue.batch(|batch| pipeline.serve_inline(batch, limit));
        inline_rest.took(pipeline.now.saturating_sub(begun));
        // A fault is reported by the queue's thread.
        if !is_idle || queue.is_broken() || poller.is_polling() {
            return false;
        }
        poller.sleeps(pipeline.instant());
        true
    }
}

impl<D: GuestAddressSpace, E: Engine> RequestPipeline<D, E> {
    /// Whether nothing but new requests is to be done.
    fn is_idle(&mut self) -> bool {
        self.limits.refresh();
        !self.limits.is_limited()
            && self.throttled.is_none()
            // Else a flush is due.
            && self.write_back == self.params.live.write_back()
            && self.operations.is_empty()
    }

    /// Returns whether no requests are left.
    fn serve_inline<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        limit: InlineLimit,
    ) -> bool {
        let mut bytes = limit.bytes;
        for _ in 0..ROUNDS {
            batch.disable_notification();
            let available = batch.available();
            if available > limit.requests {
                return false;
            }
            // Not what is larger, and left to the queue's thread.
            batch.look_ahead(available.into(), bytes.saturating_add(Header::LEN as u64));
            for left in (1..=available).rev() {
                let Some(chain) = batch.pop() else { break };
                if !self.try_request(batch, chain, left, &mut bytes) {
                    self.publish(batch);
                    return false;
                }
            }
            self.publish(batch);
            if !batch.enable_notification() {
                return true;
            }
        }
        false
    }

    /// Carries out a request, of so many that are left, if that doesn't block and all of them take no more than these
    /// bytes if they are as large. Otherwise it is left for the queue's thread.
    fn try_request<M: GuestMemory>(
        &mut self,
        batch: &mut Batch<'_, M, D>,
        chain: Chain<D>,
        requests: u16,
        bytes: &mut u64,
    ) -> bool {
        let header = Header::read(batch, &chain);
        let (kind, sector) =
            header.map_or((RequestKind::Other, 0), |header| (header.kind(), header.sector.get()));
        let has_status = chain.writable_len() > 0;
        let taken_at = self.now;
        let request = BlkRequest { chain, kind, sector, bytes: 0, taken_at, listed: None };
        let len = match kind {
            RequestKind::Read => request.data_in(),
            RequestKind::Write => request.data_out(),
            _ => u64::MAX,
        };
        if !has_status || len.saturating_mul(requests.into()) > *bytes {
            self.put_back_request(batch, request);
            return false;
        }
        *bytes = bytes.saturating_sub(len);
        self.submit_request(batch, request);
        match self.operations.try_pending() {
            Ok(Some(completion)) => !self.on_completion(batch, completion),
            // It was refused, and is answered.
            Ok(None) => true,
            Err(Left) => false,
        }
    }

    fn publish<M: GuestMemory>(&mut self, batch: &mut Batch<'_, M, D>) {
        self.unpublished_bytes = 0;
        self.now = self.answers.publish(batch, &self.clock).unwrap_or(self.now);
    }
}
