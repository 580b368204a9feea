//! One window of a subject under a load, from its start to its end.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xen_virtio_benches::{Driver, QueueLayout};

use crate::cell::Requests;
use crate::client::{self, Port};
use crate::cpu::{Cores, Meter, Side};
use crate::image::{Image, Images};
use crate::in_process::InProcess;
use crate::plan::{DEEPEST, LARGEST};
use crate::process::Process;
use crate::program::{Paths, Serving};
use crate::raw;
use crate::session::SharedMemory;
use crate::subject::Subject;
use crate::task::Task;
use crate::verify::verify;
use crate::window::{Doubt, Metrics, Window};

/// Windows tried for one that is believed.
const ATTEMPTS: usize = 3;
const LAYOUT: QueueLayout = QueueLayout::new(DEEPEST, LARGEST);

/// What all measurements share.
pub(crate) struct Bench<'a> {
    pub(crate) images: &'a Images,
    pub(crate) programs: &'a Paths,
    pub(crate) cores: Cores,
    /// A directory for sockets.
    pub(crate) scratch: &'a Path,
    pub(crate) window: Duration,
}

/// A task's turn.
pub(crate) struct Turn {
    pub(crate) task: Task,
    /// The device has not been verified yet.
    pub(crate) verify: bool,
    /// Of the requests' places: the same for all subjects of a repetition.
    pub(crate) seed: u64,
}

/// What the windows of a turn gave: rejected ones, until one is believed.
pub(crate) type Outcomes = Vec<Result<Metrics, Doubt>>;

impl Bench<'_> {
    /// Starts the turn's subject, and ends it when it has been measured.
    pub(crate) fn measure(&self, turn: &Turn) -> Result<Outcomes> {
        let Task { subject, cell } = turn.task;
        let image = self.image(turn);
        match subject {
            Subject::Served { program, polls, queues } => {
                let (socket, queue_size) = (&self.scratch.join("socket"), LAYOUT.queue_size());
                let image = image.path();
                let serving = Serving { program, polls, queues, queue_size, image, socket };
                self.served(turn, &serving, Side::this_thread(self.cores.client))
            }
            Subject::InProcess => self.alone(|meter| {
                let memory = SharedMemory::new(LAYOUT, 1)?;
                let mut drivers = memory.drivers()?;
                let mut device = InProcess::new(image.path(), image.len(), &memory, &LAYOUT)?;
                self.driven(turn, &mut device, &mut drivers, meter)
            }),
            Subject::RawPread => self.alone(|meter| {
                self.windows(turn, |requests, time| {
                    raw::pread(image.file(), &cell, requests, time, meter)
                })
            }),
            Subject::RawUring => self.alone(|meter| {
                self.windows(turn, |requests, time| {
                    raw::uring(image.file(), &cell, requests, time, meter)
                })
            }),
        }
    }

    /// Does what this thread does by itself where the served devices do their part: processors
    /// differ in what else they have to do.
    fn alone(&self, work: impl FnOnce(&Meter) -> Result<Outcomes>) -> Result<Outcomes> {
        Cores::pin(self.cores.device)?;
        // The kernel's io_uring workers are threads of this process, too.
        let client = Side::process(self.cores.device, std::process::id())?;
        let outcomes = work(&Meter { client, device: None });
        Cores::pin(self.cores.client)?;
        outcomes
    }

    fn image(&self, turn: &Turn) -> &Image {
        self.images.on(turn.task.cell.op.medium())
    }

    fn served(&self, turn: &Turn, serving: &Serving<'_>, client: Side) -> Result<Outcomes> {
        let path = self.programs.of(serving.program).context("the program is not there")?;
        // The one before was killed, and left it.
        let _ = std::fs::remove_file(serving.socket);
        let memory = SharedMemory::new(LAYOUT, serving.queues)?;
        let words = self.scratch.join("stderr");
        let mut process = Process::start(serving.command(path), self.cores, words)?;
        let mut session = process.connect(serving.socket, &memory, self.image(turn).len())?;
        let device = Side::process(self.cores.device, process.pid())?;
        // On one processor each side would be foreign to the other.
        let device_core = (self.cores.device != self.cores.client).then_some(device);
        let meter = Meter { client, device: device_core };
        let mut drivers = memory.drivers()?;
        self.driven(turn, &mut session, &mut drivers, &meter)
            .with_context(|| format!("the program says: {}", process.words()))
    }

    fn driven<P: Port>(
        &self,
        turn: &Turn,
        port: &mut P,
        drivers: &mut [Driver<'_>],
        meter: &Meter,
    ) -> Result<Outcomes> {
        if turn.verify {
            verify(port, drivers, self.image(turn).file(), self.image(turn).len())
                .context("verifying")?;
        }
        self.windows(turn, |requests, time| {
            client::run(port, drivers, &turn.task.cell, requests, time, meter)
        })
    }

    fn windows(
        &self,
        turn: &Turn,
        mut run: impl FnMut(Requests, Duration) -> Result<Window>,
    ) -> Result<Outcomes> {
        let cell = &turn.task.cell;
        let mut window = |time| {
            let requests = cell.requests(self.image(turn).len(), turn.seed);
            run(requests, time).with_context(|| cell.to_string())
        };
        // A program that has just started takes up to 100 ms to be as fast as it gets.
        window(self.window / 2)?;
        let mut outcomes = Outcomes::new();
        while outcomes.len() < ATTEMPTS && !outcomes.last().is_some_and(Result::is_ok) {
            outcomes.push(window(self.window)?.judge(cell));
        }
        Ok(outcomes)
    }
}
