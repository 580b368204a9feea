//! `load`: reads from several disks at once, begun by a word from outside.

use crate::series::{Order, Series};
use anyhow::{Context as _, Result, ensure};
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Between the last answer and the words about it: other guests may still be busy, and what the words cost would be
/// part of their time.
const QUIET: Duration = Duration::from_secs(2);

/// Which reads.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// Bytes of each read.
    #[arg(value_parser = crate::sectors)]
    bytes: u64,
    /// How many reads of each disk.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many are kept in flight, of each disk.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    depth: u64,
    /// The devices, each with a thread of its own.
    #[arg(required = true)]
    devs: Vec<PathBuf>,
}

impl Load {
    /// Says when all is ready, and begins when `word` holds a line.
    pub(crate) fn run(&self, word: &mut impl BufRead) -> Result<String> {
        let time = self.timed(word)?;
        thread::sleep(QUIET);
        Ok(format!(
            "load bytes={} depth={} disks={} count={} ns={}",
            self.bytes,
            self.depth,
            self.devs.len(),
            self.count * self.devs.len() as u64,
            time.as_nanos()
        ))
    }

    fn timed(&self, word: &mut impl BufRead) -> Result<Duration> {
        let (ready, all_ready) = mpsc::channel();
        let mut readers = Vec::new();
        for dev in &self.devs {
            let (dev, ready) = (dev.clone(), ready.clone());
            let (bytes, depth, count) = (self.bytes, self.depth, self.count);
            let (begin, begins) = mpsc::channel::<()>();
            let reader = thread::spawn(move || {
                let mut series = Series::new(&dev, false, bytes, depth, Order::Apart)?;
                // The first ones map the guest's memory and warm the caches; they don't count.
                series.run(2 * depth)?;
                ready.send(()).context("the others failed")?;
                begins.recv().context("the others failed")?;
                series.run(count)?;
                // Before the series is dropped: the kernel's end of a context for requests takes tens of milliseconds.
                anyhow::Ok(Instant::now())
            });
            readers.push((begin, reader));
        }
        drop(ready);
        // Fewer, if one failed before: its error comes from `join` below.
        let begins = all_ready.iter().take(self.devs.len()).count() == self.devs.len();
        if begins {
            eprintln!("bio load: ready");
            ensure!(word.read_line(&mut String::new())? > 0, "nobody says when to begin");
        }
        let start = Instant::now();
        let mut reading = Vec::new();
        for (begin, reader) in readers {
            if begins {
                begin.send(()).context("a reader ended")?;
            }
            reading.push(reader);
        }
        let mut end = start;
        for reader in reading {
            end = end.max(reader.join().ok().context("a reader panicked")??);
        }
        Ok(end - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(devs: Vec<PathBuf>) -> Load {
        Load { bytes: 4096, count: 20, depth: 7, devs }
    }

    #[test]
    fn all_disks_are_read_when_the_word_has_come() {
        let files = [0, 1].map(|_| tempfile::NamedTempFile::new_in("/var/tmp").expect("a file"));
        files.iter().for_each(|file| file.as_file().set_len(64 << 10).expect("its size"));
        let load = load(files.iter().map(|file| file.path().to_owned()).collect());
        let words = load.run(&mut &b"begin\n"[..]).expect("a run");
        assert!(words.starts_with("load bytes=4096 depth=7 disks=2 count=40 ns="), "{words}");
    }

    #[test]
    fn nothing_begins_without_the_word() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.as_file().set_len(64 << 10).expect("its size");
        let error = load(vec![file.path().to_owned()]).run(&mut &b""[..]).unwrap_err();
        assert!(error.to_string().contains("when to begin"), "{error:#}");
    }

    #[test]
    fn a_disk_that_cannot_be_read_is_an_error() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        let error = load(vec![file.path().to_owned()]).run(&mut &b"begin\n"[..]).unwrap_err();
        assert!(error.to_string().contains("smaller than one request"), "{error:#}");
    }
}
