//! What operators ask of the daemon that runs.

use std::path::PathBuf;

use clap::{Args, value_parser};

use crate::{
    order::{Limit, LimitChange},
    rate::{Bps, Iops},
};

/// Which daemon is asked.
#[derive(Debug, Clone, Args)]
pub struct RunDir {
    /// The --run-dir of the daemon.
    #[arg(long, value_name = "DIR", default_value = "/run/xen-virtio-blk")]
    pub run_dir: PathBuf,
}

/// How `status` shows the disks.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Print JSON: an object for each interval, on a line of its own.
    #[arg(long)]
    pub json: bool,
    /// Go on after each interval, until it is interrupted.
    #[arg(long)]
    pub watch: bool,
    /// The seconds that rates and latencies are of.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Show this guest's disks only: its name, its domain id or its UUID.
    pub guest: Option<String>,
    /// The daemon.
    #[command(flatten)]
    pub daemon: RunDir,
}

/// Which disks take on their images' sizes.
#[derive(Debug, Clone, Args)]
pub struct ResizeArgs {
    /// The guest: its name, its domain id or its UUID.
    pub guest: String,
    /// The disk: as xl.cfg names it (xvda), or the path of its image [default: all of the guest's].
    pub disk: Option<String>,
    /// The daemon.
    #[command(flatten)]
    pub daemon: RunDir,
}

/// Which limits a disk gets.
#[derive(Debug, Clone, Args)]
#[group(id = "limits", args = ["iops", "bps"], required = true, multiple = true)]
pub struct LimitArgs {
    /// The guest: its name, its domain id or its UUID.
    pub guest: String,
    /// The disk: as xl.cfg names it (xvda), or the path of its image.
    pub disk: String,
    /// Requests a second, as 500 or 10K; after a slash, how many at once after a pause; or none.
    #[arg(long, value_name = "N[/BURST]|none", value_parser = iops)]
    pub iops: Option<Limit>,
    /// Bytes a second, as 100M or 100M/1G; or none.
    #[arg(long, value_name = "N[/BURST]|none", value_parser = bps)]
    pub bps: Option<Limit>,
    /// The daemon.
    #[command(flatten)]
    pub daemon: RunDir,
}

impl LimitArgs {
    /// What they change.
    pub fn change(&self) -> LimitChange {
        LimitChange { ops: self.iops, bytes: self.bps }
    }
}

/// What is logged.
#[derive(Debug, Clone, Args)]
pub struct LogLevelArgs {
    /// error, warn, info, debug or trace; or levels of parts, as info,xen_store=debug (RUST_LOG).
    pub filter: String,
    /// The daemon.
    #[command(flatten)]
    pub daemon: RunDir,
}

fn iops(text: &str) -> Result<Limit, String> {
    limit(text, |text| text.parse().map(|Iops(rate)| rate))
}

fn bps(text: &str) -> Result<Limit, String> {
    limit(text, |text| text.parse().map(|Bps(rate)| rate))
}

fn limit(
    text: &str,
    parse: impl Fn(&str) -> Result<virtio_blk_dev::Rate, String>,
) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit::Unlimited),
        text => parse(text).map(Limit::To),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use virtio_blk_dev::Rate;

    use crate::{
        args::{Cli, Command},
        order::{Limit, LimitChange},
    };

    fn limit(options: &[&str]) -> Option<LimitChange> {
        let arguments = ["xen-virtio-blk", "limit", "guest", "xvda"];
        match Cli::try_parse_from(arguments.iter().chain(options)).ok()?.command {
            Command::Limit(args) => Some(args.change()),
            _ => None,
        }
    }

    #[test]
    fn a_limit_is_a_rate_or_none_and_one_is_given() {
        let to = |per_second, burst| Some(Limit::To(Rate { per_second, burst }));
        let none = LimitChange::default();
        assert_eq!(limit(&["--iops", "1K"]), Some(LimitChange { ops: to(1000, 1000), ..none }));
        let both = LimitChange { ops: Some(Limit::Unlimited), bytes: to(1 << 20, 2 << 20) };
        assert_eq!(limit(&["--iops", "none", "--bps", "1M/2M"]), Some(both));
        for wrong in [&[][..], &["--iops", "fast"], &["--bps", "0"], &["--bps"]] {
            assert_eq!(limit(wrong), None, "{wrong:?}");
        }
    }
}
