//! `vhost-user-blk`: serves a disk image to the guests of QEMU and other VMMs.

use std::{
    io::{IsTerminal, stderr},
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;
use vhost_user_blk::{args::Args, device::Device, server::Server};

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user-blk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let (stop, signalled) = UnixStream::pair().context("making a signal pipe")?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let pipe = signalled.try_clone().context("making a signal pipe")?;
        signal_hook::low_level::pipe::register(signal, pipe)
            .with_context(|| format!("handling signal {signal}"))?;
    }
    Server::bind(&args.socket, Device::open(args)?)?.run(stop.as_fd())
}
