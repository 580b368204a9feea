//! The seeds: made here, kept in `seeds/`, and known to reach what they are for.
//!
//! `UPDATE_SEEDS=1 cargo test` in this directory writes them anew. Files that nothing here makes
//! are findings of a fuzzer, kept so that they stay mended.

mod mmio;
mod pci;
mod qcow2;
mod request;
mod vhost_user;
mod xenstore;

use std::fs;
use std::path::PathBuf;

/// The longest that a seed may be: small ones mutate into more.
const LONGEST: usize = 4096;

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

/// Compares the made seeds of a target with the kept ones, and runs all that are kept.
fn keep(target: &str, made: &[(&str, Vec<u8>)], run: impl Fn(&[u8])) {
    let directory = directory(target);
    for (name, bytes) in made {
        assert!(bytes.len() <= LONGEST, "{target}/{name} has {} bytes", bytes.len());
        let path = directory.join(name);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        let kept = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(kept == *bytes, "{target}/{name} is stale: UPDATE_SEEDS=1 cargo test");
    }
    let mut count = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= made.len());
}
