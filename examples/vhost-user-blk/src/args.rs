//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use virtio_worker::CpuList;

/// Serves a disk image as a vhost-user-blk device until SIGTERM, to one frontend (QEMU,
/// cloud-hypervisor, libblkio) after the other.
///
/// The first SIGTERM or SIGINT lets a frontend that is connected keep its disk until it goes; the
/// second ends the program at once.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// The socket to listen at; it is made, and removed at the end.
    #[arg(long)]
    pub socket: PathBuf,
    /// The disk: a raw image file or a block device.
    #[arg(long)]
    pub image: PathBuf,
    /// Refuse writes, and share the image with other readers.
    #[arg(long)]
    pub read_only: bool,
    /// What carries out the I/O.
    #[arg(long, value_enum, default_value_t = EngineKind::IoUring)]
    pub engine: EngineKind,
    /// Go around this host's page cache (O_DIRECT).
    #[arg(long)]
    pub direct: bool,
    /// The logical block size in bytes, which the image's contents were made for: partition tables
    /// count in it. A power of two from 512 to 65536 [default: the storage's, 512 of a file].
    #[arg(long, value_name = "BYTES", value_parser = logical_block_size)]
    pub logical_block_size: Option<u32>,
    /// Queues offered, each served by a thread of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub queues: u16,
    /// Descriptors in a queue at most: a power of two up to 1024.
    #[arg(long, default_value_t = 256, value_parser = queue_size)]
    pub queue_size: u16,
    /// How long a thread looks for the next request before it sleeps, at most, in microseconds:
    /// less where that doesn't pay, and never with 0.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub poll_us: u32,
    /// The identifier that the guest reads, of at most 20 bytes.
    #[arg(long, default_value = "")]
    pub serial: String,
    /// The processors to run on, as in `0,2-3`: the first queue's thread on the first of them, and
    /// so on, from the start again when there are more queues.
    #[arg(long)]
    pub cpus: Option<CpuList>,
    /// How many seconds a frontend that is connected keeps its disk after the first SIGTERM, at
    /// most; 0 is not at all. Without this option, until it goes.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub stop_timeout: Option<Duration>,
}

/// What carries out the I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// The kernel does many requests at once; where it has no io_uring, as `sync`.
    #[value(name = "io_uring")]
    IoUring,
    /// System calls of the queue's thread, one request after the other.
    Sync,
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "should be a number of seconds".into())
}

fn logical_block_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && (512..=65536).contains(&bytes) => Ok(bytes),
        _ => Err("should be a power of two from 512 to 65536".into()),
    }
}

fn queue_size(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (4..=1024).contains(&size) => Ok(size),
        _ => Err("should be a power of two from 4 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_makes_no_device_is_refused() {
        let with = |option: &[&str]| {
            let fixed = ["vhost-user-blk", "--socket", "s", "--image", "i"];
            Args::try_parse_from(fixed.iter().chain(option))
        };
        assert!(with(&["--queue-size", "128", "--queues", "64", "--cpus", "0,2-3"]).is_ok());
        for bad in [
            ["--queue-size", "2"],
            ["--queue-size", "100"],
            ["--queue-size", "2048"],
            ["--queues", "0"],
            ["--logical-block-size", "256"],
            ["--logical-block-size", "4095"],
            ["--queues", "65"],
            ["--poll-us", "10001"],
            ["--cpus", "3-1"],
            ["--stop-timeout", "-1"],
            ["--stop-timeout", "inf"],
            ["--stop-timeout", "soon"],
        ] {
            assert!(with(&bad).is_err(), "{bad:?}");
        }
    }
}
