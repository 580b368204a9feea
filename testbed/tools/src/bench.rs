//! `bench`: what one request costs.

use crate::aio::Aio;
use crate::disk;
use anyhow::{Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Which requests.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// The device.
    dev: PathBuf,
    /// Read or write.
    op: Op,
    /// Bytes of each request.
    #[arg(value_parser = crate::sectors)]
    bytes: u64,
    /// How many requests.
    count: u64,
    /// How many are kept in flight.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    depth: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Op {
    #[value(name = "r")]
    Read,
    #[value(name = "w")]
    Write,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<String> {
        let file = disk::open(&self.dev, matches!(self.op, Op::Write))?;
        let room = disk::size(&file)? / self.bytes;
        ensure!(room > 0 && self.count > 0, "{} is smaller than one request", self.dev.display());
        let time =
            if self.depth == 1 { self.one_by_one(&file, room)? } else { self.deep(&file, room)? };
        let (op, ns) = (if matches!(self.op, Op::Read) { 'r' } else { 'w' }, time.as_nanos());
        Ok(format!(
            "bench op={op} bytes={} count={} depth={} ns={ns} ns_per_request={}",
            self.bytes,
            self.count,
            self.depth,
            ns / u128::from(self.count)
        ))
    }

    fn one_by_one(&self, file: &File, room: u64) -> Result<Duration> {
        let mut buffer = disk::buffer(self.bytes as usize)?;
        buffer.fill(0x5a);
        let start = Instant::now();
        for request in 0..self.count {
            let offset = request % room * self.bytes;
            match self.op {
                Op::Read => file.read_exact_at(&mut buffer, offset)?,
                Op::Write => file.write_all_at(&buffer, offset)?,
            }
        }
        Ok(start.elapsed())
    }

    fn deep(&self, file: &File, room: u64) -> Result<Duration> {
        let (depth, len) = (self.depth as usize, self.bytes as usize);
        let mut aio = Aio::new(file, depth, len)?;
        let mut idle: Vec<usize> = (0..depth).collect();
        idle.iter().for_each(|&slot| aio.buffer(slot).fill(0x5a));
        let (mut sent, mut done) = (0, 0);
        let start = Instant::now();
        while done < self.count {
            while sent < self.count
                && let Some(slot) = idle.pop()
            {
                aio.queue(slot, matches!(self.op, Op::Write), sent % room * self.bytes, len);
                sent += 1;
            }
            aio.submit()?;
            aio.wait(|slot| {
                idle.push(slot);
                done += 1;
            })?;
        }
        Ok(start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_made_at_any_depth() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").expect("a file");
        file.as_file().set_len(64 << 10).expect("its size");
        for depth in [1, 7] {
            file.as_file().write_all_at(&[0; 64 << 10], 0).expect("zeroes");
            let bench =
                Bench { dev: file.path().to_owned(), op: Op::Write, bytes: 4096, count: 16, depth };
            let words = bench.run().expect("a run");
            assert!(
                words.starts_with(&format!("bench op=w bytes=4096 count=16 depth={depth} ns=")),
                "{words}"
            );
            let mut content = vec![0; 64 << 10];
            file.as_file().read_exact_at(&mut content, 0).expect("its content");
            assert!(content.iter().all(|&byte| byte == 0x5a), "depth {depth}");
        }
    }
}
