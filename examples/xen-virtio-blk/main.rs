//! `xen-virtio-blk`: serves virtio disks to the guests of a Xen host.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use backend_process::{Logging, Signals, limits, output, signals};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{error, info};
use xen_store::{Store, XenStore};
use xen_virtio_blk::{
    args::{Cli, Command, RunArgs},
    backend::Backend,
    check,
    metrics::MetricsFile,
    platform::Xen,
    settings::Settings,
};

const NAME: &str = "xen-virtio-blk";

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check => check::run(),
        Command::Run(args) => match Logging::start() {
            Ok(logging) => logging.end(NAME, &run(&args)),
            Err(error) => output::failure(NAME, error),
        },
    }
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    signals::survive_failed_writes().context("handling SIGXFSZ")?;
    limits::raise_open_files();
    let settings = Settings::load(args)?;
    let signals = |which: &[i32]| Signals::new(which).context("handling signals");
    let stop = signals(&[signals::SIGTERM, signals::SIGINT])?;
    let report = signals(&[signals::SIGUSR1])?;
    let resized = signals(&[signals::SIGHUP])?;
    let store = XenStore::open().context(
        "xenstore can't be reached: is xenstored running? `xen-virtio-blk check` says more",
    )?;
    let mut backend = Backend::new(store, Xen, settings)?;
    let interval = Duration::from_secs(args.metrics_interval);
    let mut metrics = args.metrics_file.clone().map(|path| MetricsFile::new(path, interval));
    let mut connected = true;
    loop {
        // Events may have been read along with an answer, so they come before the descriptor is asked.
        if connected && let Err(error) = backend.handle_events() {
            error!(%error, "xenstore is lost: the disks that are served stay so, but no guest will be taken on or let go; restart this daemon when no guest needs it");
            connected = false;
        }
        let own = [&stop, &report, &resized];
        let mut fds: Vec<_> = own.map(|signal| PollFd::new(signal, PollFlags::IN)).into();
        if connected {
            fds.push(PollFd::from_borrowed_fd(backend.store().as_fd(), PollFlags::IN));
        }
        let retry = backend.wait().filter(|_| connected);
        let wait = metrics.as_ref().map(MetricsFile::wait).into_iter().chain(retry).min();
        let timeout = wait.map(|wait| Timespec {
            // No more than a day, see the command line.
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for events"),
        }
        let [stopped, reported, is_resized] =
            [0, 1, 2].map(|fd: usize| !fds[fd].revents().is_empty());
        if reported {
            report.take();
            backend.report();
        }
        if let Some(metrics) = metrics.as_mut().filter(|it| reported || it.wait().is_zero()) {
            metrics.write(&backend.figures());
        }
        if is_resized {
            resized.take();
            backend.refresh_capacities();
        }
        if stopped {
            info!("asked to stop");
            backend.stop();
            return Ok(());
        }
    }
}
