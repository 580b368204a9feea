//! The command line.

use std::path::PathBuf;

pub use bus::DeviceTreeArgs;
use clap::{Args, Parser, Subcommand, value_parser};
pub use operator::{LimitArgs, LogLevelArgs, ResizeArgs, RunDir, StatusArgs};
use virtio_worker::CpuList;
use xen_virtio_backend::{MapBudget, TransportKind};

use crate::{
    engine_kind::EngineKind,
    rate::{Bps, Iops},
};

mod bus;
mod operator;

/// A thread that looks for work for longer than a second waits rather than polls.
pub(crate) const MAX_POLL_US: u64 = 1_000_000;

/// A virtio block backend for Xen: serves the disks that xl.cfg marks `specification=virtio`.
#[derive(Debug, Parser)]
#[command(name = "xen-virtio-blk", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the disks of every guest.
    ///
    /// Each guest is served by a process of its own, which can reach that guest and its images only. At SIGTERM this
    /// program ends, and those processes serve on: started again, it takes them over. At SIGUSR1 each disk's process logs
    /// what the disk has done; at SIGHUP it reads the size of the image, and tells the guest if it has changed.
    Run(Box<RunArgs>),
    /// Say what this domain can do as a backend, and what to do about what is missing.
    Check,
    /// Show the disks of every guest, and what they do.
    ///
    /// The rates and latencies are those of a second (--interval). A disk is opening, ready (the guest's driver does not
    /// use it yet), active, stalled (requests wait, and none was answered for some seconds), closing, stuck (its storage
    /// does not answer, so that it can't be closed), or refused, with the reason below the table.
    Status(StatusArgs),
    /// Have disks take on the size that their images have now, and tell the guest.
    ///
    /// Resize the image first: a file by truncate, a volume by lvextend. A smaller size is taken, too: shrink the guest's
    /// file system before.
    Resize(ResizeArgs),
    /// Change the rate limits of a disk that is served.
    ///
    /// They hold at once, and until the guest ends or is rebooted: what is to hold then, too, belongs in the options of
    /// `run` or its --config file.
    Limit(LimitArgs),
    /// Write the device tree by which a guest finds its disks on a PCI bus.
    ///
    /// A request costs a third of the traps there, and less than one of Xen's own PV disk. The tree is written to the
    /// standard output, and the lines of xl.cfg that go with it to the standard error. The guest's disk lines stay as
    /// they are; `run` is to have --transport pci, or transport = "pci" for the guest.
    DeviceTree(DeviceTreeArgs),
    /// Change what is logged.
    ///
    /// It holds for the daemon until it is restarted, and for the process of each guest until the guest ends.
    LogLevel(LogLevelArgs),
}

/// How `run` serves. What is said here holds for every disk; `--config` has some served otherwise.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Settings of single disks: a TOML file with a table for each, named by the image's path.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the lock is that keeps a second daemon from serving the same disks.
    #[arg(long, value_name = "DIR", default_value = "/run/xen-virtio-blk")]
    pub run_dir: PathBuf,
    /// Don't confine the processes of guests. A guest that takes over the process that serves it can then reach every
    /// other guest's memory and disks, and this domain.
    #[arg(long)]
    pub no_sandbox: bool,
    /// Most memory that the process of each guest may use, as 64M: with more, the kernel ends it. Takes a delegated
    /// cgroup, as the systemd unit has it [default: unlimited].
    #[arg(long, value_name = "SIZE", value_parser = memory_max)]
    pub guest_memory_max: Option<u64>,
    /// Most CPU time that the process of each guest may use, in percent of one CPU [default: unlimited].
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u32).range(1..=100_000))]
    pub guest_cpu_quota: Option<u32>,
    /// Keep the disks' figures in this file as Prometheus reads them: for node_exporter's textfile
    /// collector its name should end in .prom. SIGUSR1 writes it at once.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How often the file is written, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = value_parser!(u64).range(1..=86400))]
    pub metrics_interval: u64,
    /// What carries out I/O [default: io_uring where the kernel has it, else sync].
    #[arg(long)]
    pub engine: Option<EngineKind>,
    /// Go around the page cache of this domain (O_DIRECT).
    #[arg(long)]
    pub direct: bool,
    /// The logical block size of each disk in bytes, which its contents were made for: partition tables
    /// count in it. A power of two from 512 to 65536 [default: the storage's, 512 of a file].
    #[arg(long, value_name = "BYTES", value_parser = logical_block_size)]
    pub logical_block_size: Option<u32>,
    /// Request queues of each disk, each served by a thread of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub queues: u16,
    /// How guests reach their disks: each in a virtio-mmio window, or on a PCI bus, if the guest's xl.cfg names the
    /// device tree of `device-tree`. The table [guests.NAME] of the --config file has a guest served otherwise.
    #[arg(long, value_name = "mmio|pci", default_value_t)]
    pub transport: TransportKind,
    /// Descriptors in each queue: a power of two up to 1024.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = queue_size)]
    pub queue_size: u16,
    /// Microseconds that a queue's thread looks for more work at most before it sleeps; 0 turns this
    /// off. It does so only while requests come that fast: an idle disk costs no CPU either way.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 50, value_parser = value_parser!(u64).range(..=MAX_POLL_US))]
    pub poll_us: u64,
    /// How much of each guest's memory may be mapped here, as 512M or 2G, at least 16M [default: a part of
    /// this domain's memory, by what a mapped page costs it].
    #[arg(long, value_name = "SIZE")]
    pub map_budget: Option<MapBudget>,
    /// CPUs for the queues' threads, as 0,2 or 0-3: queue 0 of each disk runs on the first, queue 1 on
    /// the second, round robin [default: any].
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Requests a second that each disk may make, as 500 or 10K; after a slash, how many at once after
    /// a pause [default: unlimited; a second's worth].
    #[arg(long, value_name = "N[/BURST]")]
    pub iops: Option<Iops>,
    /// Bytes a second that each disk may move, as 100M or 100M/1G.
    #[arg(long, value_name = "N[/BURST]")]
    pub bps: Option<Bps>,
}

/// Parses the size of a logical block.
pub(crate) fn logical_block_size(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && (512..=65536).contains(&bytes) => Ok(bytes),
        _ => Err(format!("{text}: a logical block size is a power of two from 512 to 65536")),
    }
}

/// Parses a size that a process can do with.
fn memory_max(text: &str) -> Result<u64, String> {
    match xen_virtio_backend::amount(text, 1024) {
        Some(bytes) if bytes >= 16 << 20 => Ok(bytes),
        _ => Err("should be a size of 16M or more, as 64M or 1G".into()),
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
        Cli::command().debug_assert();
    }

    #[test]
    fn a_queue_size_that_no_ring_can_have_is_refused() {
        for size in ["0", "2", "100", "2048", "-1", "x"] {
            let error = Cli::try_parse_from(["xen-virtio-blk", "run", "--queue-size", size]);
            assert!(error.is_err(), "{size}");
        }
        assert!(Cli::try_parse_from(["xen-virtio-blk", "run", "--queue-size", "128"]).is_ok());
    }

    #[test]
    fn options_that_nothing_can_be_made_of_are_refused() {
        for (option, value, right) in [
            ("--engine", "threads", "io_uring"),
            ("--queues", "0", "1"),
            ("--logical-block-size", "256", "4096"),
            ("--logical-block-size", "513", "512"),
            ("--logical-block-size", "131072", "65536"),
            ("--queues", "257", "256"),
            ("--poll-us", "1000001", "0"),
            ("--map-budget", "1M", "1G"),
            ("--guest-memory-max", "1M", "64M"),
            ("--guest-cpu-quota", "0", "150"),
            ("--cpus", "1-0", "0-1"),
            ("--iops", "fast", "10K/20K"),
            ("--bps", "0", "100M"),
        ] {
            let parse = |value| Cli::try_parse_from(["xen-virtio-blk", "run", option, value]);
            assert!(parse(value).is_err(), "{option} {value}");
            assert!(parse(right).is_ok(), "{option} {right}");
        }
    }
}
