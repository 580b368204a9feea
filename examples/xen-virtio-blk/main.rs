//! `xen-virtio-blk`: serves virtio disks to the guests of a Xen host.

use std::{process::ExitCode, time::Duration};

use backend_process::{Logging, limits, output};
use clap::Parser;
use xen_virtio_backend::{
    Backend,
    daemon::{Metrics, Options},
};
use xen_virtio_blk::{
    args::{Cli, Command, RunArgs},
    check, device_tree,
    disks::Disks,
    metrics::MetricsFile,
    operate,
    settings::Settings,
};

fn main() -> ExitCode {
    if let Some(code) = xen_virtio_backend::guest_process::<Disks>() {
        return code;
    }
    match Cli::parse().command {
        Command::Check => check::run(),
        Command::Status(args) => answer(operate::status(&args)),
        Command::Resize(args) => answer(operate::resize(&args)),
        Command::Limit(args) => answer(operate::limit(&args)),
        Command::LogLevel(args) => answer(operate::log_level(&args)),
        Command::DeviceTree(args) => answer(device_tree(&args)),
        Command::Run(args) => match Logging::start() {
            Ok(logging) => logging.end(Disks::NAME, &run(&args).map_err(advise)),
            Err(error) => output::failure(Disks::NAME, error),
        },
    }
}

fn answer(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(Disks::NAME, error),
    }
}

/// Whatever failed by a limit of the system's, the way to raise it is said, once.
fn advise(error: anyhow::Error) -> anyhow::Error {
    match limits::advice(error.as_ref()) {
        Some(advice) if !format!("{error:#}").contains(&advice) => error.context(advice),
        _ => error,
    }
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    let settings = Settings::load(args)?;
    let interval = Duration::from_secs(args.metrics_interval);
    let metrics_file =
        |path| -> Box<dyn Metrics<Disks> + Send> { Box::new(MetricsFile::new(path, interval)) };
    let mut options = Options::new(&args.run_dir);
    options.map_budget = settings.map_budget();
    options.transports = settings.transports().clone();
    options.metrics = args.metrics_file.clone().map(metrics_file);
    options.isolation.sandbox = !args.no_sandbox;
    options.isolation.memory = args.guest_memory_max;
    options.isolation.cpu_milli = args.guest_cpu_quota.map(|percent| percent * 10);
    Ok(xen_virtio_backend::run(Disks::new(settings), options)?)
}
