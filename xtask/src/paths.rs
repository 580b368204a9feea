//! Where things are in the checkout, and a few facts of the host.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The checkout. `cargo run` says where it is; the place of the build may be another one's.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().unwrap_or(&manifest).to_owned()
}

/// A file of the recipe.
pub(crate) fn testbed(name: &str) -> PathBuf {
    root().join("testbed").join(name)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// What runs leave: logs, images, versions.json.
pub(crate) fn results(name: &str) -> PathBuf {
    target().join("testbed").join(name)
}

/// `-jN` for the host's processors.
pub(crate) fn jobs() -> String {
    format!("-j{}", processors())
}

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All files below a directory, sorted.
pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
