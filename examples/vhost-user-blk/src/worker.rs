//! The thread that serves one queue.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use backend_process::{chain, limits};
use tracing::{error, warn};
use virtio_blk_dev::{
    Canceller, Engine, EngineFault, HostError, Poller, QueueWaiter, ServeError, Stats, Worker,
};
use virtio_dev::{LiveQueue, Positions, QueueConfig, QueueError, RingFault};
use virtio_worker::{
    EngineWaiter, LogLimit, QueueThread, Served, ThreadEvent, ThreadSpec, Waiter, Wake,
};
use vm_memory::GuestMemoryMmap;

use crate::{
    device::Device,
    engine::{Kind, QueueEngine},
    events::Events,
};

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The driver's mistake.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The frontend's, or this host's.
    #[error("queue {index}: {what}")]
    Host { index: u16, what: &'static str, source: io::Error },
}

/// What a queue's thread needs, besides its engine.
pub(crate) struct Job {
    pub(crate) device: Arc<Device>,
    pub(crate) config: QueueConfig,
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) events: Events,
    pub(crate) limit: LogLimit,
    /// Ends its long requests early.
    pub(crate) canceller: Canceller,
}

/// Where a queue was left, and what it has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) positions: Positions,
    pub(crate) stats: Stats,
}

/// Where the thread stores its report, also when it panics; `None` before it has the rings.
type Left = Arc<Mutex<Option<Report>>>;

/// A queue being served.
pub(crate) struct WorkerThread {
    /// Whether it was served until it was stopped.
    thread: QueueThread<QueueEngine, bool>,
    left: Left,
    canceller: Canceller,
}

/// What a queue leaves that is no longer served.
pub(crate) struct Ended {
    /// `None` if the thread never had the rings.
    pub(crate) report: Option<Report>,
    /// It ended before it was told to: what it had taken and not answered is lost.
    pub(crate) failed: bool,
    /// `None` if it was unusable.
    pub(crate) engine: Option<QueueEngine>,
}

impl WorkerThread {
    /// Takes the queue into service; returns when the thread has the rings. If that fails, the engine is
    /// returned with the error, unless it is unusable.
    pub(crate) fn start(
        job: Job,
        kick: BorrowedFd<'_>,
        engine: QueueEngine,
    ) -> Result<Self, (StartError, Option<QueueEngine>)> {
        let index = job.config.index;
        let host = |what, source| StartError::Host { index, what, source: limits::explain(source) };
        let wake = match Wake::new() {
            Ok(wake) => wake,
            Err(error) => return Err((host("no eventfd can be made", error), Some(engine))),
        };
        if let Err(error) = wake.watch(kick) {
            let what = "its kick descriptor can't be waited for: it should be an eventfd";
            return Err((host(what, error), Some(engine)));
        }
        let cpu = job.device.cpus.of_queue(index);
        let spec = ThreadSpec::new(format!("vq-{index}"), wake).cpu(cpu);
        let on_event = log_events(index, job.events.clone(), job.limit.clone());
        let (ready, started) = mpsc::sync_channel(1);
        let (left, canceller) = (Left::default(), job.canceller.clone());
        let its = Arc::clone(&left);
        let serve = move |engine: &mut QueueEngine, waiter: &mut Waiter| match &mut engine.kind {
            Kind::Uring(engine) => job.serve(&mut **engine, waiter, &ready, &its),
            Kind::Sync(engine) => job.serve(engine, waiter, &ready, &its),
        };
        let thread = match QueueThread::start(spec, engine, serve, on_event) {
            Ok(thread) => thread,
            Err(error) => {
                let what = "no thread can be started";
                return Err((host(what, error.reason.source), Some(error.engine)));
            }
        };
        match started.recv() {
            Ok(Ok(())) => Ok(Self { thread, left, canceller }),
            Ok(Err(error)) => Err((error, thread.stop().engine)),
            Err(mpsc::RecvError) => {
                let error = host("its thread panicked", io::ErrorKind::Other.into());
                Err((error, thread.stop().engine))
            }
        }
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        self.thread.wake();
    }

    /// Has a list of ranges that isn't carried out to its end fail: nobody waits for its answer.
    pub(crate) fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Finishes what is in flight, and lets go of the rings.
    pub(crate) fn stop(self) -> Ended {
        let stopped = self.thread.stop();
        let report = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ended { report, failed: stopped.report != Some(true), engine: stopped.engine }
    }
}

/// Logs the events of a queue's thread, and signals the frontend's error descriptor if it panics.
fn log_events(queue: u16, events: Events, limit: LogLimit) -> impl FnMut(&ThreadEvent) + Send {
    move |event| match event {
        ThreadEvent::NotPinned { cpu, source } => {
            if let Some(dropped) = limit.allow() {
                warn!(queue, %cpu, error = %chain(source), dropped, "a queue's thread can't be bound to its CPU, and runs on any: correct --cpus");
            }
        }
        event => {
            events.err.signal();
            error!(queue, error = %chain(event), "the queue is stopped until it is set up again: restart the guest's VMM, as requests in flight are lost");
        }
    }
}

type Started = mpsc::SyncSender<Result<(), StartError>>;

impl Job {
    /// Whether the queue was served until it was stopped.
    fn serve(
        &self,
        engine: impl Engine,
        waiter: &mut Waiter,
        ready: &Started,
        left: &Left,
    ) -> Served<bool> {
        let index = self.config.index;
        // Before the worker, which is dropped first.
        let mut mapped = Mapped(Some(Arc::clone(&self.memory)));
        let memory = &*self.memory;
        let queue = match LiveQueue::new(&self.config, &memory, memory, self.events.clone()) {
            Ok(queue) => queue,
            Err(error) => {
                let _ = ready.send(Err(error.into()));
                mapped.is_free();
                return Served::idle(false);
            }
        };
        let worker = Worker::new(queue, engine, &self.device.params())
            .with_canceller(self.canceller.clone());
        let mut serving = Serving { worker, left };
        let waiter = EngineWaiter::new(waiter, serving.worker.as_fd());
        let _ = ready.send(Ok(()));
        let limit = &self.limit;
        let mut waiter = BlockWaiter { waiter, index, limit, engine_is_whole: true };
        let ended = match serving.worker.serve(&mut Poller::new(self.device.poll), &mut waiter) {
            Ok(()) => {
                mapped.is_free();
                true
            }
            Err(ServeError::StillInUse(error)) => {
                waiter.engine_is_whole = false;
                error!(queue = index, error = %chain(&error), "a queue's I/O has not come back from the kernel, so the guest's memory stays mapped: end the guest, and restart this program");
                false
            }
            Err(error) => {
                mapped.is_free();
                error!(queue = index, error = %chain(&error), "a queue is no longer served until the guest's driver sets it up again: restart the guest's VMM if it does not");
                false
            }
        };
        if !ended {
            self.events.err.signal();
        }
        if waiter.engine_is_whole { Served::idle(ended) } else { Served::unusable(ended) }
    }
}

/// A worker that stores its report when it is dropped, and so also in a panic. After a panic nothing else of
/// it is used.
struct Serving<'a, E: Engine> {
    worker: Worker<&'a GuestMemoryMmap, &'a GuestMemoryMmap, E>,
    left: &'a Left,
}

impl<E: Engine> Drop for Serving<'_, E> {
    fn drop(&mut self) {
        let (positions, stats) = (self.worker.queue().state(), self.worker.stats());
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = Some(Report { positions, stats });
    }
}

/// The guest's memory, which stays mapped for ever unless it is known that nobody uses it any more.
struct Mapped(Option<Arc<GuestMemoryMmap>>);

impl Mapped {
    /// Nobody does.
    fn is_free(&mut self) {
        self.0 = None;
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// Waits for kicks, completions and the stop, and logs what the worker reports.
struct BlockWaiter<'a> {
    waiter: EngineWaiter<'a>,
    index: u16,
    limit: &'a LogLimit,
    /// The engine can serve the queue again.
    engine_is_whole: bool,
}

impl QueueWaiter for BlockWaiter<'_> {
    fn is_stopped(&self) -> bool {
        self.waiter.is_stopped()
    }

    fn wait(
        &mut self,
        engine: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.waiter.wait(engine, timeout)
    }

    fn on_host_error(&mut self, error: &HostError) {
        if let Some(dropped) = self.limit.allow() {
            warn!(queue = self.index, error = %chain(&error), dropped, "a request failed, and the guest got an I/O error: check the image's storage");
        }
    }

    fn on_durability_lost(&mut self, error: &HostError) {
        error!(queue = self.index, error = %chain(&error), "a flush failed, and what the guest wrote before it may be lost; all flushes fail from now on: check the image's storage, end the guest, restart this program, and check the guest's file systems");
    }

    fn on_broken(&mut self, fault: RingFault) {
        if let Some(dropped) = self.limit.allow() {
            warn!(queue = self.index, %fault, dropped, "the guest's driver broke the ring with an invalid entry: the queue is stopped until the driver resets the disk");
        }
    }

    fn on_engine_fault(&mut self, fault: &EngineFault) {
        self.engine_is_whole = false;
        warn!(queue = self.index, fault = %chain(fault), "io_uring failed in a queue's thread");
    }
}

#[cfg(test)]
mod tests;
