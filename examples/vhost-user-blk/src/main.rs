//! `vhost-user-blk`: serves a disk image to the guests of QEMU and other VMMs.

use std::process::ExitCode;

use anyhow::Context;
use backend_process::{Logging, Signals, limits, output, signals};
use clap::Parser;
use vhost_user_blk::{
    args::Args,
    device::Device,
    server::{Server, Stop},
};

const NAME: &str = "vhost-user-blk";

fn main() -> ExitCode {
    let args = Args::parse();
    match Logging::start() {
        Ok(logging) => logging.end(NAME, &run(&args)),
        Err(error) => output::failure(NAME, error),
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    signals::survive_failed_writes().context("can't ignore SIGXFSZ")?;
    limits::raise_open_files();
    let stop =
        Signals::new(&[signals::SIGTERM, signals::SIGINT]).context("can't handle signals")?;
    let stop = Stop::new(stop, args.stop_timeout);
    Server::bind(&args.socket, Device::open(args)?)?.run(&stop)
}
