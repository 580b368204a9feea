use super::*;
use crate::args::Args;
use clap::Parser;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
};
use virtio_blk_dev::{Completion, Io, RawImage, SyncEngine};
use vm_memory::{Bytes, GuestAddress};

impl WorkerThread {
    pub(crate) fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// A thread that has ended with this, well or by a panic.
    pub(crate) fn ended(report: Option<Report>, panics: bool) -> Self {
        let serve = move |_: &mut QueueEngine, _: &mut Waiter| {
            assert!(!panics, "as ordered");
            Served::idle(true)
        };
        let spec = ThreadSpec::new("vq-test", Wake::new().unwrap());
        let thread = QueueThread::start(spec, engine(), serve, |_| {}).unwrap();
        Self { thread, left: Arc::new(Mutex::new(report)), canceller: Canceller::default() }
    }
}

/// One of an image of zeroes.
fn engine() -> QueueEngine {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    let image = Arc::new(RawImage::open(file.path(), false).unwrap());
    QueueEngine { queue_size: 16, kind: Kind::Sync(SyncEngine::new(image)) }
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
        events,
        limit: LogLimit::new(),
        canceller: Canceller::default(),
    };
    (job, err)
}

/// An engine that keeps what it is given, and says so.
struct Keeps(mpsc::Sender<()>, Vec<Io>);

impl Engine for Keeps {
    fn submit(&mut self, io: Io) -> Option<Completion> {
        self.1.push(io);
        self.0.send(()).unwrap();
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

/// A thread that serves `job` by `engine`, and where it leaves its report.
fn serve<E: Engine + Send + 'static>(job: Job, engine: E) -> (QueueThread<E, bool>, Left) {
    let left = Left::default();
    let its = Arc::clone(&left);
    let (ready, started) = mpsc::sync_channel(1);
    let on_event = log_events(job.config.index, job.events.clone(), job.limit.clone());
    let serve = move |engine: &mut E, waiter: &mut Waiter| job.serve(engine, waiter, &ready, &its);
    let spec = ThreadSpec::new("vq-test", Wake::new().unwrap());
    let thread = QueueThread::start(spec, engine, serve, on_event).unwrap();
    started.recv().unwrap().unwrap();
    (thread, left)
}

#[test]
fn memory_that_an_engine_keeps_stays_mapped() {
    let (job, err) = job_of_one_read();
    let memory = Arc::downgrade(&job.memory);
    let (submitted, taken) = mpsc::channel();
    let (thread, left) = serve(job, Keeps(submitted, Vec::new()));
    taken.recv().unwrap();
    let stopped = thread.stop();
    assert_eq!(stopped.report, Some(false));
    assert!(memory.upgrade().is_some(), "unmapped under the kernel");
    assert!(stopped.engine.is_none(), "the next queue would get the answer to this one's request");
    assert!(left.lock().unwrap().is_some());
    rustix::io::read(&err, &mut [0; 8]).expect("the error descriptor is signalled");

    let (job, _err) = job_of_one_read();
    let memory = Arc::downgrade(&job.memory);
    let engine = SyncEngine::new(Arc::clone(&job.device.image));
    let stopped = serve(job, engine).0.stop();
    assert_eq!((stopped.report, stopped.engine.is_some()), (Some(true), true));
    assert!(memory.upgrade().is_none(), "mapped for nothing");
}

#[test]
fn a_thread_that_panics_tells_the_frontend_and_where_the_queue_stands() {
    let (job, err) = job_of_one_read();
    let (thread, left) = serve(job, Faulty);
    let mut fds = [PollFd::new(&err, PollFlags::IN)];
    assert_eq!(
        poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })),
        Ok(1),
        "not told at once"
    );
    let stopped = thread.stop();
    assert!(stopped.report.is_none() && stopped.engine.is_none());
    let report = left.lock().unwrap().take().expect("a report");
    assert_eq!(report.positions.next_avail, 8, "the request that was taken isn't taken again");
}

#[test]
fn a_queue_that_can_not_be_served_leaves_its_engine() {
    let kick = eventfd(0, EventfdFlags::empty()).unwrap();
    let (mut job, _err) = job_of_one_read();
    job.config.used_ring = 0x1_0000;
    let Err((error, left)) = WorkerThread::start(job, kick.as_fd(), engine()) else {
        panic!("its rings lie in no memory")
    };
    assert!(matches!(error, StartError::Queue(_)) && left.is_some(), "{error}");
    let (job, _err) = job_of_one_read();
    let file = tempfile::tempfile().unwrap();
    let Err((error, left)) = WorkerThread::start(job, file.as_fd(), engine()) else {
        panic!("nobody can wait for a file")
    };
    assert!(error.to_string().contains("eventfd") && left.is_some(), "{error}");
}
