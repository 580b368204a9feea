//! `bench`: what one request costs.

use crate::series::{Order, Series};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::Instant;

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
        ensure!(self.count > 0, "no requests");
        let write = matches!(self.op, Op::Write);
        let mut series = Series::new(&self.dev, write, self.bytes, self.depth, Order::Adjacent)?;
        let start = Instant::now();
        series.run(self.count)?;
        let (op, ns) = (if write { 'w' } else { 'r' }, start.elapsed().as_nanos());
        Ok(format!(
            "bench op={op} bytes={} count={} depth={} ns={ns} ns_per_request={}",
            self.bytes,
            self.count,
            self.depth,
            ns / u128::from(self.count)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

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
