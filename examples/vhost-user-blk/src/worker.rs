//! The thread that serves one queue: it owns the rings, and nothing stands between it and them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use backend_process::LogLimit;
use tracing::{error, warn};
use virtio_blk_dev::{
    Doorbell, Engine, EngineFault, HostError, Poller, ServeError, Stats, SyncEngine, UringEngine,
    Worker,
};
use virtio_mmio_dev::{LiveQueue, Positions, QueueConfig, QueueError, RingFault};
use vm_memory::GuestMemoryMmap;

use crate::{
    args::EngineKind,
    device::Device,
    events::Events,
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
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) kick: OwnedFd,
    pub(crate) events: Events,
    pub(crate) limit: LogLimit,
}

/// Where a queue was left, and what it has done.
#[derive(Clone, Debug, Default)]
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

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        self.stop.wake();
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
    fn run(self, stop: &Stop, ready: &Started) -> Report {
        let image = Arc::clone(&self.device.image);
        if self.device.engine == EngineKind::IoUring {
            match UringEngine::new(Arc::clone(&image), self.config.size) {
                Ok(engine) => return self.serve(engine, stop, ready),
                Err(error) => {
                    if let Some(dropped) = self.limit.allow() {
                        warn!(%error, dropped, "no io_uring: requests are done one after the other");
                    }
                }
            }
        }
        self.serve(SyncEngine::new(image), stop, ready)
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
            let worker = Worker::new(queue, engine, &self.device.params());
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
        let _ = ready.send(Ok(()));
        let mut bell = Bell { sleep, stop, index, limit: &self.limit };
        match worker.serve(&mut Poller::new(self.device.poll), &mut bell) {
            Ok(()) => {}
            Err(ServeError::StillInUse(error)) => {
                error!(queue = index, %error, "the guest's memory stays mapped, and may still be written to: end the guest, and restart this program");
                std::mem::forget(Arc::clone(&self.memory));
            }
            Err(error) => error!(queue = index, %error, "a queue is served no more"),
        }
        Report { positions: worker.queue().state(), stats: worker.stats() }
    }
}

/// By what a queue's thread hears of kicks, completions and its end.
struct Bell<'a> {
    sleep: Sleep,
    stop: &'a Stop,
    index: u16,
    limit: &'a LogLimit,
}

impl Doorbell for Bell<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.is_given()
    }

    fn wait(
        &mut self,
        _engine: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.sleep.until_woken(timeout);
        Ok(())
    }

    fn failed(&mut self, error: &HostError) {
        if let Some(dropped) = self.limit.allow() {
            warn!(queue = self.index, %error, dropped, "the image could not do what the guest asked: it got an I/O error");
        }
    }

    fn broken(&mut self, fault: RingFault) {
        if let Some(dropped) = self.limit.allow() {
            warn!(queue = self.index, %fault, dropped, "the guest broke the ring: its queue is stopped until it resets the device");
        }
    }
    fn engine_failed(&mut self, fault: &EngineFault) {
        warn!(queue = self.index, %fault, "a queue's engine broke");
    }
}
