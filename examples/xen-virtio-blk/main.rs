//! `xen-virtio-blk`: serves virtio disks to the guests of a Xen host.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use backend_process::{Logging, Notify, Signals, limits, output, signals};
use clap::Parser;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
};
use tracing::info;
use xen_store::XenStore;
use xen_virtio_backend::{
    Backend, Handshake, Xen,
    daemon::{self, Connect, Contact, Daemon, Extras, Metrics, Orders, RunDir},
};
use xen_virtio_blk::{
    args::{Cli, Command, RunArgs},
    check,
    disks::Disks,
    figures::Figures,
    metrics::MetricsFile,
    settings::Settings,
};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check => check::run(),
        Command::Run(args) => match Logging::start() {
            Ok(logging) => logging.end(Disks::NAME, &run(&args).map_err(advise)),
            Err(error) => output::failure(Disks::NAME, error),
        },
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
    signals::survive_failed_writes().context("can't ignore SIGXFSZ")?;
    limits::raise_open_files();
    let settings = Settings::load(args)?;
    let signals = |which: &[i32]| Signals::new(which).context("can't handle signals");
    let orders = Orders {
        stop: signals(&[signals::SIGTERM, signals::SIGINT])?,
        report: signals(&[signals::SIGUSR1])?,
        resize: signals(&[signals::SIGHUP])?,
    };
    let _run_dir = RunDir::lock(&args.run_dir)?;
    let connect: Connect<XenStore> = Arc::new(daemon::open);
    let Some(store) = first_contact(&connect, &orders.stop)? else {
        info!("told to stop before xenstored answered");
        return Ok(());
    };
    let budget = settings.map_budget();
    let handshake = Handshake::new(store, Xen, Disks::new(settings), budget)
        .context("can't watch xenstore for disks")?;
    let interval = Duration::from_secs(args.metrics_interval);
    let metrics_file =
        |path| -> Box<dyn Metrics<Figures> + Send> { Box::new(MetricsFile::new(path, interval)) };
    let extras = Extras {
        metrics: args.metrics_file.clone().map(metrics_file),
        stop_timeout: args.stop_timeout.map(|seconds| Duration::from_secs(seconds.into())),
        notify: Notify::from_env(),
    };
    Ok(Daemon::new(handshake, connect, orders, extras).run()?)
}

/// The connection to xenstored; `None` if the order to stop comes first.
fn first_contact(connect: &Connect<XenStore>, stop: &Signals) -> anyhow::Result<Option<XenStore>> {
    let contact = Contact::begin(connect)?;
    loop {
        if stop.take() > 0 {
            return Ok(None);
        }
        if let Some(store) = contact.take() {
            return Ok(Some(store?));
        }
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&contact, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).context("can't wait for xenstored")?;
    }
}
