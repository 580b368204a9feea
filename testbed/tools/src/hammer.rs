//! `hammer`: random reads and writes, many in flight, all verified.

use crate::aio::Aio;
use crate::disk::{self, SECTOR};
use crate::pattern;
use anyhow::{Context as _, Result, anyhow, ensure};
use std::fs::File;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How hard.
#[derive(clap::Args)]
pub(crate) struct Hammer {
    /// The device.
    dev: PathBuf,
    /// Each has a part of the device to itself.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Requests that each thread keeps in flight.
    #[arg(long, default_value_t = 4)]
    depth: u64,
    /// Requests of each thread.
    #[arg(long, default_value_t = 1000)]
    ops: u64,
    /// Go on for so long instead.
    #[arg(long)]
    seconds: Option<u64>,
    /// Start over after so many milliseconds, again and again, without closing the device. Each thread says each time
    /// what it did.
    #[arg(long)]
    again_after_ms: Option<u64>,
    /// What is done and written.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The part of the device that is used, from its start.
    #[arg(long, default_value = "16M", value_parser = crate::sectors)]
    len: u64,
    /// The largest request.
    #[arg(long, default_value = "64k", value_parser = crate::sectors)]
    bytes: u64,
}

#[derive(Default)]
struct Done {
    reads: u64,
    writes: u64,
    verified: u64,
    /// The longest time between two answers of the disk.
    pause: Duration,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.verified += other.verified;
        self.pause = self.pause.max(other.pause);
    }
}

impl Hammer {
    pub(crate) fn run(&self) -> Result<String> {
        let file = disk::open(&self.dev, true)?;
        let cells = self.len / self.bytes / self.threads.max(1);
        ensure!(self.threads > 0 && self.depth > 0, "at least one thread and one request");
        ensure!(
            cells >= self.depth,
            "too little room for so many threads and requests of that size"
        );
        ensure!(self.len <= disk::size(&file)?, "{} is smaller than that", self.dev.display());
        let mut all = Done::default();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|number| {
                    let file = &file;
                    scope.spawn(move || Part::new(self, number, cells).run(self, file))
                })
                .collect();
            for thread in threads {
                all += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            anyhow::Ok(())
        })?;
        Ok(self.words(&all))
    }

    fn words(&self, done: &Done) -> String {
        format!(
            "hammer threads={} depth={} reads={} writes={} verified_bytes={} longest_pause_us={} wrong=0",
            self.threads,
            self.depth,
            done.reads,
            done.writes,
            done.verified * SECTOR,
            done.pause.as_micros()
        )
    }
}

/// A request in flight. Each has a cell of the part to itself, so its outcome is certain.
#[derive(Clone, Copy)]
struct Flight {
    cell: u64,
    /// Within the part.
    first: usize,
    count: usize,
    /// The version it writes; a read has none.
    writes: Option<u32>,
}

/// One thread's part of the device.
struct Part {
    first_sector: u64,
    cells: u64,
    cell_sectors: u64,
    /// What each sector holds: the version of its last write; 0 is unknown.
    versions: Vec<u32>,
    seed: u64,
    random: u64,
    /// When the disk last answered.
    answered: Instant,
    done: Done,
}

impl Part {
    fn new(hammer: &Hammer, number: u64, cells: u64) -> Self {
        let cell_sectors = hammer.bytes / SECTOR;
        Self {
            first_sector: number * cells * cell_sectors,
            cells,
            cell_sectors,
            versions: vec![0; (cells * cell_sectors) as usize],
            seed: hammer.seed,
            random: pattern::mix(hammer.seed, number),
            answered: Instant::now(),
            done: Done::default(),
        }
    }

    fn run(mut self, hammer: &Hammer, file: &File) -> Result<Done> {
        let depth = hammer.depth as usize;
        let mut aio = Aio::new(file, depth, hammer.bytes as usize)?;
        while let Some(gap) = hammer.again_after_ms {
            self.round(hammer, file, &mut aio)?;
            println!("bio {}", hammer.words(&self.done));
            thread::sleep(Duration::from_millis(gap));
            (self.answered, self.done) = (Instant::now(), Done::default());
        }
        self.round(hammer, file, &mut aio)?;
        Ok(self.done)
    }

    fn round(&mut self, hammer: &Hammer, file: &File, aio: &mut Aio) -> Result<()> {
        let depth = hammer.depth as usize;
        let mut flights: Vec<Option<Flight>> = vec![None; depth];
        let mut finished: Vec<usize> = Vec::with_capacity(depth);
        let until = hammer.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut started = 0;
        loop {
            for slot in 0..depth {
                let more = || until.map_or(started < hammer.ops, |until| Instant::now() < until);
                if flights[slot].is_none() && more() {
                    let flight = self.choose(&flights, started);
                    self.start(aio, slot, flight);
                    flights[slot] = Some(flight);
                    started += 1;
                }
            }
            if flights.iter().all(Option::is_none) {
                break;
            }
            aio.submit().context("submitting")?;
            aio.wait(|slot| finished.push(slot)).context("a request")?;
            for slot in finished.drain(..) {
                if let Some(flight) = flights[slot].take() {
                    self.finish(aio, slot, flight)?;
                }
            }
        }
        file.sync_data().context("flushing")?;
        self.note_answer();
        self.read_back(aio)
    }

    /// A request on a cell that no other request is on.
    fn choose(&mut self, flights: &[Option<Flight>], number: u64) -> Flight {
        let cell = loop {
            let cell = self.roll(self.cells);
            if flights.iter().flatten().all(|flight| flight.cell != cell) {
                break cell;
            }
        };
        let skip = self.roll(self.cell_sectors);
        let count = 1 + self.roll(self.cell_sectors - skip) as usize;
        let first = (cell * self.cell_sectors + skip) as usize;
        let known = self.versions[first..first + count].iter().any(|&version| version != 0);
        let writes = (!known || self.roll(2) == 0).then_some(number as u32 + 1);
        Flight { cell, first, count, writes }
    }

    fn start(&self, aio: &mut Aio, slot: usize, flight: Flight) {
        let sector = self.first_sector + flight.first as u64;
        let data = &mut aio.buffer(slot)[..flight.count * SECTOR as usize];
        match flight.writes {
            Some(version) => pattern::fill(data, self.content(version), sector),
            // What the disk fails to write must not pass for what it should have written.
            None => data.fill(0xee),
        }
        aio.queue(slot, flight.writes.is_some(), sector * SECTOR, flight.count * SECTOR as usize);
    }

    fn note_answer(&mut self) {
        let now = Instant::now();
        self.done.pause = self.done.pause.max(now - self.answered);
        self.answered = now;
    }

    fn finish(&mut self, aio: &mut Aio, slot: usize, flight: Flight) -> Result<()> {
        self.note_answer();
        let range = flight.first..flight.first + flight.count;
        if let Some(version) = flight.writes {
            self.versions[range].fill(version);
            self.done.writes += 1;
            return Ok(());
        }
        let data = aio.buffer(slot);
        for (index, sector) in range.zip(data.chunks_exact(SECTOR as usize)) {
            let (version, number) = (self.versions[index], self.first_sector + index as u64);
            if version != 0 {
                ensure!(
                    pattern::mismatch(sector, self.content(version), number).is_none(),
                    "sector {number} doesn't hold version {version}"
                );
                self.done.verified += 1;
            }
        }
        self.done.reads += 1;
        Ok(())
    }

    /// Everything once more, now that all is quiet.
    fn read_back(&mut self, aio: &mut Aio) -> Result<()> {
        for cell in 0..self.cells {
            let count = self.cell_sectors as usize;
            let flight = Flight { cell, first: cell as usize * count, count, writes: None };
            self.start(aio, 0, flight);
            aio.submit()?;
            aio.wait(drop)?;
            self.finish(aio, 0, flight)?;
        }
        Ok(())
    }

    fn content(&self, version: u32) -> u64 {
        self.seed.wrapping_add(u64::from(version) << 32)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_add(1);
        pattern::mix(self.random, self.seed) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn hammer(dev: &std::path::Path, ops: u64) -> Hammer {
        let (threads, depth, seed, len, bytes) = (2, 4, 3, 1 << 20, 16 << 10);
        let (seconds, again_after_ms) = (None, None);
        Hammer {
            dev: dev.to_owned(),
            threads,
            depth,
            ops,
            seconds,
            again_after_ms,
            seed,
            len,
            bytes,
        }
    }

    #[test]
    fn a_sound_disk_passes() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.as_file().set_len(1 << 20).expect("its size");
        let words = hammer(file.path(), 200).run().expect("a run");
        assert!(words.ends_with("wrong=0"), "{words}");
    }

    #[test]
    fn the_longest_pause_is_between_two_answers() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        let mut part = Part::new(&hammer(file.path(), 1), 0, 32);
        part.note_answer();
        std::thread::sleep(Duration::from_millis(30));
        part.note_answer();
        part.note_answer();
        let mut all = Done { pause: Duration::from_millis(20), ..Done::default() };
        all += part.done;
        assert!(all.pause >= Duration::from_millis(30), "{:?}", all.pause);
    }

    #[test]
    fn a_lost_write_is_found() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.as_file().set_len(1 << 20).expect("its size");
        let direct = disk::open(file.path(), true).expect("opens");
        let hammer = hammer(file.path(), 1);
        let mut part = Part::new(&hammer, 0, 32);
        let mut aio = Aio::new(&direct, 1, hammer.bytes as usize).expect("a context");
        let flight = Flight { cell: 5, first: 5 * 32, count: 32, writes: Some(1) };
        part.start(&mut aio, 0, flight);
        aio.submit().expect("submitted");
        aio.wait(drop).expect("written");
        part.finish(&mut aio, 0, flight).expect("noted");
        part.read_back(&mut aio).expect("all is there");
        file.as_file().write_all_at(&[0; 512], (5 * 32 + 9) * 512).expect("a sector undone");
        let error = part.read_back(&mut aio).expect_err("it is missed");
        assert!(error.to_string().contains("sector 169 "), "{error}");
    }
}
