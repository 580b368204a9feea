//! Writes what a package has of `xen-virtio-blk`'s command line: man pages and shell completions, by `clap` from the very
//! definition that the program parses.
//!
//! `packaging DIR` writes `DIR/man/*.8` and `DIR/completions/*`.

mod completions;
mod pages;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::PathBuf;

/// Write the man pages and shell completions of xen-virtio-blk.
#[derive(Parser)]
#[command(name = "packaging")]
struct Args {
    /// The directory to write to; made if it isn't there.
    dir: PathBuf,
}

fn main() -> Result<()> {
    let Args { dir } = Args::parse();
    for (part, files) in [("man", pages::all()?), ("completions", completions::all())] {
        let dir = dir.join(part);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
