//! One repetition for one subject: its cells, each for a window.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xen_virtio_benches::{Driver, QueueLayout};

use crate::cell::{Cell, Requests};
use crate::client::{self, Port};
use crate::cpu::{Cores, Meter, Side};
use crate::image::{Image, Images};
use crate::in_process::InProcess;
use crate::plan::{DEEPEST, LARGEST, Task};
use crate::process::Process;
use crate::program::{Paths, Serving};
use crate::raw;
use crate::results::Results;
use crate::session::SharedMemory;
use crate::subject::Subject;
use crate::verify::verify;
use crate::window::Window;

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

/// One subject's turn.
pub(crate) struct Turn<'a> {
    pub(crate) task: &'a Task,
    /// The device has not been verified yet.
    pub(crate) verify: bool,
    /// Of the requests' places: the same for all subjects of a repetition.
    pub(crate) seed: u64,
}

impl Bench<'_> {
    /// Takes windows of all cells of a turn.
    pub(crate) fn measure(&self, turn: &Turn<'_>, results: &mut Results) -> Result<()> {
        let client = Side::this_thread(self.cores.client);
        // The kernel's io_uring workers are threads of this process, too.
        let alone = Side::process(self.cores.client, std::process::id())?;
        let alone = Meter { client: alone, device: None };
        match turn.task.subject {
            Subject::Served { .. } => self.served(turn, client, results),
            Subject::InProcess => {
                let memory = SharedMemory::new(LAYOUT, 1)?;
                let mut drivers = memory.drivers()?;
                let (path, len) = (self.image(turn).path(), self.image(turn).len());
                let mut device = InProcess::new(path, len, &memory, &LAYOUT)?;
                self.driven(turn, &mut device, &mut drivers, &alone, results)
            }
            Subject::RawPread => self.windows(turn, results, |cell, requests, time| {
                raw::pread(self.image(turn).file(), cell, requests, time, &alone)
            }),
            Subject::RawUring => self.windows(turn, results, |cell, requests, time| {
                raw::uring(self.image(turn).file(), cell, requests, time, &alone)
            }),
        }
    }

    fn image(&self, turn: &Turn<'_>) -> &Image {
        self.images.on(turn.task.medium)
    }

    fn served(&self, turn: &Turn<'_>, client: Side, results: &mut Results) -> Result<()> {
        let Subject::Served { program, polls, queues } = turn.task.subject else { return Ok(()) };
        let path = self.programs.of(program).context("the program is not there")?;
        let socket = self.scratch.join("socket");
        // The one before was killed, and left it.
        let _ = std::fs::remove_file(&socket);
        let (image, memory) = (self.image(turn).path(), SharedMemory::new(LAYOUT, queues)?);
        let queue_size = LAYOUT.queue_size();
        let serving = Serving { program, polls, queues, queue_size, image, socket: &socket };
        let words = self.scratch.join("stderr");
        let mut process = Process::start(serving.command(path), self.cores, words)?;
        let mut session = process.connect(&socket, &memory, self.image(turn).len())?;
        let device = Side::process(self.cores.device, process.pid())?;
        // On one processor each side would be foreign to the other.
        let device_core = (self.cores.device != self.cores.client).then_some(device);
        let meter = Meter { client, device: device_core };
        let mut drivers = memory.drivers()?;
        self.driven(turn, &mut session, &mut drivers, &meter, results)
            .with_context(|| format!("the program says: {}", process.words()))
    }

    fn driven<P: Port>(
        &self,
        turn: &Turn<'_>,
        port: &mut P,
        drivers: &mut [Driver<'_>],
        meter: &Meter,
        results: &mut Results,
    ) -> Result<()> {
        if turn.verify {
            verify(port, drivers, self.image(turn).file(), self.image(turn).len())
                .context("verifying")?;
        }
        self.windows(turn, results, |cell, requests, time| {
            client::run(port, drivers, cell, requests, time, meter)
        })
    }

    fn windows(
        &self,
        turn: &Turn<'_>,
        results: &mut Results,
        mut run: impl FnMut(&Cell, Requests, Duration) -> Result<Window>,
    ) -> Result<()> {
        for cell in &turn.task.cells {
            let mut window = |time| {
                let requests = cell.requests(self.image(turn).len(), turn.seed);
                run(cell, requests, time).with_context(|| cell.to_string())
            };
            window(self.window / 3)?;
            for _ in 0..ATTEMPTS {
                let outcome = window(self.window)?.judge(cell);
                results.add(turn.task.subject, *cell, outcome);
                if outcome.is_ok() {
                    break;
                }
            }
        }
        Ok(())
    }
}
