//! The thread that serves one queue: it owns the rings, and nothing stands between it and them.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use backend_process::{LogLimit, chain, limits};
use tracing::{error, warn};
use virtio_blk_dev::{
    Canceller, Engine, EngineFault, HostError, Poller, QueueWaiter, ServeError, Stats, Worker,
};
use virtio_mmio_dev::{LiveQueue, Positions, QueueConfig, QueueError, RingFault};
use vm_memory::GuestMemoryMmap;

use crate::{
    device::Device,
    engine::{Kind, QueueEngine},
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
    #[error("queue {index}: {what}")]
    Host { index: u16, what: &'static str, source: io::Error },
}

/// What a queue's thread needs.
pub(crate) struct Job {
    pub(crate) device: Arc<Device>,
    /// The one that served the queue before.
    pub(crate) engine: Option<QueueEngine>,
    pub(crate) config: QueueConfig,
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) kick: OwnedFd,
    pub(crate) events: Events,
    pub(crate) limit: LogLimit,
    /// By what its long requests are ended early.
    pub(crate) canceller: Canceller,
}

/// Where a queue was left, and what it has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) positions: Positions,
    pub(crate) stats: Stats,
    /// It ended before it was told to: what it had taken and not answered is lost.
    pub(crate) failed: bool,
}

/// A queue being served.
pub(crate) struct WorkerThread {
    stop: Stop,
    canceller: Canceller,
    thread: JoinHandle<(Report, Option<QueueEngine>)>,
}

impl WorkerThread {
    /// Takes the queue into service; returns when the thread has the rings and its engine.
    pub(crate) fn start(job: Job) -> Result<Self, StartError> {
        let index = job.config.index;
        let host =
            |what| move |source| StartError::Host { index, what, source: limits::explain(source) };
        let stop = Stop::new().map_err(host("no eventfd can be made"))?;
        let (ready, started) = mpsc::sync_channel(1);
        let (its, canceller) = (stop.clone(), job.canceller.clone());
        let thread = thread::Builder::new()
            .name(format!("vq-{index}"))
            .spawn(move || job.run(&its, &ready))
            .map_err(host("no thread can be started"))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { stop, canceller, thread }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(host("its thread panicked")(io::ErrorKind::Other.into())),
        }
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        self.stop.wake();
    }

    /// Has a list of ranges that isn't carried out to its end fail: nobody waits for its answer.
    pub(crate) fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Finishes what is in flight, and lets go of the rings; `None` if the thread can't say where it
    /// left them. Gives the engine back, too, unless it broke.
    pub(crate) fn stop(self) -> Option<(Report, Option<QueueEngine>)> {
        self.stop.give();
        self.thread.join().ok()
    }
}

type Started = mpsc::SyncSender<Result<(), StartError>>;

impl Job {
    fn run(mut self, stop: &Stop, ready: &Started) -> (Report, Option<QueueEngine>) {
        let size = self.config.size;
        let had = self.engine.take().filter(|engine| engine.queue_size == size);
        let mut engine = had.unwrap_or_else(|| QueueEngine::new(&self.device, size, &self.limit));
        let (report, is_whole) = match &mut engine.kind {
            Kind::Uring(engine) => self.serve(&mut **engine, stop, ready),
            Kind::Sync(engine) => self.serve(engine, stop, ready),
        };
        (report, is_whole.then_some(engine))
    }

    /// What it has done, and whether the engine is still what it was.
    fn serve(&self, engine: impl Engine, stop: &Stop, ready: &Started) -> (Report, bool) {
        let index = self.config.index;
        // Before the worker, which is dropped first.
        let mut mapped = Mapped(Some(Arc::clone(&self.memory)));
        let memory = &*self.memory;
        if let Some(cpus) = &self.device.cpus
            && let Err(error) = cpus.pin(index)
        {
            warn!(queue = index, error = %chain(&error), "a queue's thread can't be bound to its CPU, and runs on any: correct --cpus");
        }
        let start = || {
            let queue = LiveQueue::new(&self.config, &memory, memory, self.events.clone())?;
            let worker = Worker::new(queue, engine, &self.device.params())
                .with_canceller(self.canceller.clone());
            let what = "its kick descriptor can't be waited for: it should be an eventfd";
            let sleep = Sleep::new(self.kick.as_fd(), stop, worker.as_fd()).map_err(|source| {
                StartError::Host { index, what, source: limits::explain(source) }
            })?;
            Ok((worker, sleep))
        };
        let (mut worker, sleep) = match start() {
            Ok(started) => started,
            Err(error) => {
                let _ = ready.send(Err(error));
                mapped.is_free();
                return (Report::default(), true);
            }
        };
        let _ = ready.send(Ok(()));
        let mut waiter = Waiter { sleep, stop, index, limit: &self.limit, engine_is_whole: true };
        let mut poller = Poller::new(self.device.poll);
        // A panic is a fault of this program. The queue's positions are looked at afterwards, and
        // nothing else of what it leaves behind.
        let served = AssertUnwindSafe(|| worker.serve(&mut poller, &mut waiter));
        let failed = match panic::catch_unwind(served) {
            Ok(Ok(())) => {
                mapped.is_free();
                false
            }
            Ok(Err(ServeError::StillInUse(error))) => {
                error!(queue = index, error = %chain(&error), "a queue's I/O has not come back from the kernel, so the guest's memory stays mapped: end the guest, and restart this program");
                true
            }
            Ok(Err(error)) => {
                mapped.is_free();
                error!(queue = index, error = %chain(&error), "a queue is no longer served until the guest's driver sets it up again: restart the guest's VMM if it does not");
                true
            }
            Err(_) => {
                waiter.engine_is_whole = false;
                error!(
                    queue = index,
                    "a queue's thread panicked, and the queue is stopped until it is set up again: restart the guest's VMM, as requests in flight are lost, and report this as a bug"
                );
                true
            }
        };
        let report = Report { positions: worker.queue().state(), stats: worker.stats(), failed };
        if failed {
            self.events.err.signal();
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(worker)));
        }
        (report, waiter.engine_is_whole)
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

/// By what a queue's thread hears of kicks, completions and its end.
struct Waiter<'a> {
    sleep: Sleep,
    stop: &'a Stop,
    index: u16,
    limit: &'a LogLimit,
    /// It can serve the queue when that is set up anew.
    engine_is_whole: bool,
}

impl QueueWaiter for Waiter<'_> {
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
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;
    use rustix::event::{EventfdFlags, eventfd};
    use std::fs::File;
    use virtio_blk_dev::{Completion, Io, SyncEngine};
    use vm_memory::{Bytes, GuestAddress};

    impl WorkerThread {
        pub(crate) fn canceller(&self) -> Canceller {
            self.canceller.clone()
        }

        /// A thread that has ended with this.
        pub(crate) fn ended(report: Option<Report>) -> Self {
            let thread =
                thread::spawn(move || (report.unwrap_or_else(|| panic!("as ordered")), None));
            Self { stop: Stop::new().unwrap(), canceller: Canceller::default(), thread }
        }
    }

    /// An engine with a fault.
    struct Faulty;

    impl Engine for Faulty {
        fn submit(&mut self, _: Io) -> Option<Completion> {
            panic!("as ordered")
        }

        fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

        fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn in_flight(&self) -> usize {
            0
        }
    }

    /// A queue with one request, a read of sector 0, and what its frontend hears of errors by.
    fn job_of_one_read() -> (Job, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(4096).unwrap();
        let args = ["vhost-user-blk", "--socket", "s", "--image", image.to_str().unwrap()];
        let device = Device::open(&Args::try_parse_from(args).unwrap()).unwrap();
        device.accept_features(1 << 32);

        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let put = |at: u64, bytes: &[u8]| memory.write_slice(bytes, GuestAddress(at)).unwrap();
        // A read of sector 0: header, data, status.
        for (nth, (addr, len, flags)) in
            [(0x3000_u64, 16_u32, 1_u16), (0x4000, 512, 3), (0x5000, 1, 2)].iter().enumerate()
        {
            let at = 16 * nth as u64;
            put(at, &addr.to_le_bytes());
            put(at + 8, &len.to_le_bytes());
            put(at + 12, &flags.to_le_bytes());
            put(at + 14, &(nth as u16 + 1).to_le_bytes());
        }
        // The entry after the seventh is the next, and the only one.
        put(0x1002, &8_u16.to_le_bytes());
        let (events, err) = (Events::default(), eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        events.err.set(Some(File::from(err.try_clone().unwrap()))).unwrap();
        let config = QueueConfig {
            index: 0,
            size: 16,
            size_max: 16,
            desc_table: 0,
            avail_ring: 0x1000,
            used_ring: 0x2000,
            event_idx: false,
            indirect: false,
            next_avail: 7,
            next_used: 7,
        };
        let job = Job {
            device: Arc::new(device),
            config,
            memory: Arc::new(memory),
            kick: eventfd(0, EventfdFlags::empty()).unwrap(),
            events,
            limit: LogLimit::new(),
            engine: None,
            canceller: Canceller::default(),
        };
        (job, err)
    }

    /// An engine that keeps what it is given, and ends the thread.
    struct Keeps(Stop, Vec<Io>);

    impl Engine for Keeps {
        fn submit(&mut self, io: Io) -> Option<Completion> {
            self.0.give();
            self.1.push(io);
            None
        }

        fn poll_completions(&mut self, _: &mut dyn FnMut(Completion)) {}

        fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn in_flight(&self) -> usize {
            self.1.len()
        }
    }

    #[test]
    fn memory_that_an_engine_keeps_stays_mapped() {
        let (job, _err) = job_of_one_read();
        let (memory, stop) = (Arc::downgrade(&job.memory), Stop::new().unwrap());
        let (ready, _started) = mpsc::sync_channel(1);
        let (report, _) = job.serve(Keeps(stop.clone(), Vec::new()), &stop, &ready);
        assert!(report.failed);
        drop(job);
        assert!(memory.upgrade().is_some(), "unmapped under the kernel");

        let (job, _err) = job_of_one_read();
        let memory = Arc::downgrade(&job.memory);
        let (ready, _started) = mpsc::sync_channel(1);
        let engine = SyncEngine::new(Arc::clone(&job.device.image));
        let (report, engine_is_whole) = job.serve(engine, &stop, &ready);
        assert!(!report.failed && engine_is_whole);
        drop(job);
        assert!(memory.upgrade().is_none(), "mapped for nothing");
    }

    #[test]
    fn a_thread_that_panics_tells_the_frontend_and_where_the_queue_stands() {
        let (job, err) = job_of_one_read();
        let (ready, started) = mpsc::sync_channel(1);
        let (report, engine_is_whole) = job.serve(Faulty, &Stop::new().unwrap(), &ready);
        started.recv().unwrap().unwrap();
        assert!(report.failed && !engine_is_whole);
        assert_eq!(report.positions.next_avail, 8, "the request that was taken isn't taken again");
        rustix::io::read(&err, &mut [0; 8]).expect("the error descriptor is signalled");
    }
}
