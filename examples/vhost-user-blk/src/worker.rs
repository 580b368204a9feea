//! The thread that serves one queue: it owns the rings, and nothing stands between it and them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use tracing::{error, warn};
use virtio_blk_dev::{Engine, Stats, SyncEngine, Worker};
use virtio_mmio_dev::{LiveQueue, Positions, QueueConfig, QueueError, RingFault};
use vm_memory::GuestMemoryMmap;

use crate::{
    args::EngineKind,
    device::Device,
    events::Events,
    log_limit::LogLimit,
    polling::{Doorbell, Window},
    sleep::{Sleep, Stop},
};

/// Why a queue can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The driver's mistake.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The frontend's, or this host's.
    #[error("queue {index}: {what}: {source}")]
    Host { index: u16, what: &'static str, source: io::Error },
}

/// What a queue's thread needs.
pub(crate) struct Job {
    pub(crate) device: Arc<Device>,
    pub(crate) config: QueueConfig,
    /// The negotiated features.
    pub(crate) features: u64,
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) kick: OwnedFd,
    pub(crate) events: Events,
    pub(crate) limit: LogLimit,
}

/// Where a queue was left, and what it has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) positions: Positions,
    pub(crate) stats: Stats,
}

/// A queue being served.
pub(crate) struct WorkerThread {
    stop: Stop,
    thread: JoinHandle<Report>,
}

impl WorkerThread {
    /// Takes the queue into service; returns when the thread has the rings and its engine.
    pub(crate) fn start(job: Job) -> Result<Self, StartError> {
        let index = job.config.index;
        let host = |what| move |source| StartError::Host { index, what, source };
        let stop = Stop::new().map_err(host("no eventfd"))?;
        let (ready, started) = mpsc::sync_channel(1);
        let its = stop.clone();
        let thread = thread::Builder::new()
            .name(format!("vq-{index}"))
            .spawn(move || job.run(&its, &ready))
            .map_err(host("no thread"))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { stop, thread }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(host("its thread panicked")(io::ErrorKind::Other.into())),
        }
    }

    /// Finishes what is in flight, and lets go of the rings.
    pub(crate) fn stop(self) -> Report {
        self.stop.give();
        self.thread.join().unwrap_or_else(|_| {
            error!("a queue's thread panicked");
            Report::default()
        })
    }
}

type Started = mpsc::SyncSender<Result<(), StartError>>;

impl Job {
    /// The engine is made on the thread that uses it: an io_uring may have one submitter only.
    fn run(self, stop: &Stop, ready: &Started) -> Report {
        match self.device.engine {
            EngineKind::Sync => {
                let engine = SyncEngine::new(Arc::clone(&self.device.image));
                self.serve(engine, stop, ready)
            }
        }
    }

    fn serve(&self, engine: impl Engine, stop: &Stop, ready: &Started) -> Report {
        let index = self.config.index;
        let memory = &*self.memory;
        if let Some(cpus) = &self.device.cpus
            && let Err(error) = cpus.pin(index)
        {
            warn!(queue = index, %error, "the thread can't be tied to its processor");
        }
        let start = || {
            let queue = LiveQueue::new(&self.config, &memory, memory, self.events.clone())?;
            let worker = Worker::new(queue, engine, &self.device.params(self.features));
            let what = "its kick descriptor can't be waited for: it should be an eventfd";
            let sleep = Sleep::new(self.kick.as_fd(), stop, worker.as_fd())
                .map_err(|source| StartError::Host { index, what, source })?;
            Ok((worker, sleep))
        };
        let (mut worker, sleep) = match start() {
            Ok(started) => started,
            Err(error) => {
                let _ = ready.send(Err(error));
                return Report::default();
            }
        };
        let doorbell = Doorbell::new(memory, &self.config);
        let _ = ready.send(Ok(()));

        let mut window = Window::new(self.device.poll);
        // Since when there has been nothing to do, and whether looking for more is over.
        let mut idle: Option<Instant> = None;
        let mut sleepy = false;
        while !stop.is_given() {
            let progress = worker.run();
            if let Some(error) = worker.take_last_error()
                && let Some(dropped) = self.limit.allow()
            {
                warn!(queue = index, %error, dropped, "the image could not do what the guest asked: it got an I/O error");
            }
            if worker.is_broken() {
                self.tell_fault(worker.queue().fault());
                break;
            }
            if progress.processed != 0 {
                (idle, sleepy) = (None, false);
            }
            if progress.more {
                continue;
            }
            let began = *idle.get_or_insert_with(Instant::now);
            if let Some(doorbell) = &doorbell
                && !sleepy
                && !window.now().is_zero()
            {
                let until = began + window.now();
                let next = worker.queue().state().next_avail;
                // What the engine has in hand is asked for by running, and so are kicks, before
                // sleeping.
                let wait = || stop.is_given() || worker.queue().in_flight() > 0;
                sleepy = !doorbell.watch(next, until, wait) && Instant::now() >= until;
                continue;
            }
            sleep.until_woken();
            window.slept(began.elapsed());
            (idle, sleepy) = (None, false);
        }
        worker.drain();
        Report { positions: worker.queue().state(), stats: worker.stats() }
    }

    fn tell_fault(&self, fault: Option<RingFault>) {
        if let (Some(fault), Some(dropped)) = (fault, self.limit.allow()) {
            let index = self.config.index;
            warn!(queue = index, %fault, dropped, "the guest broke the ring: its queue is stopped until it resets the device");
        }
    }
}
