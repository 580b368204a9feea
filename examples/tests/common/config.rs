//! Settings as an operator writes them.

use std::path::Path;

use clap::Parser;
use xen_virtio_blk::{
    args::{Cli, Command},
    settings::Settings,
};

/// Those of `xen-virtio-blk run --config FILE`.
pub fn load(file: &Path) -> Settings {
    let file = file.to_str().expect("a readable path");
    match Cli::parse_from(["xen-virtio-blk", "run", "--config", file]).command {
        Command::Run(args) => Settings::load(&args).expect("settings"),
        _ => unreachable!("it says run"),
    }
}
