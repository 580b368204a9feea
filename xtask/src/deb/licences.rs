//! The licences of what a static binary carries, which want their notices to go with it.

use crate::log::output;
use crate::paths;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those of the crates that the daemon is linked from, and of the C library.
pub(super) struct Licences {
    crates: Vec<Crate>,
    libc: &'static str,
}

struct Crate {
    name: String,
    version: String,
    /// In SPDX's terms.
    licence: String,
    /// What its files that are about it say.
    texts: Vec<String>,
}

/// What is used here of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct MetadataPackage {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None for the crates of the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    root: Option<String>,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `build` or `dev`; none for what is linked.
    kind: Option<String>,
}

impl Licences {
    /// Of the daemon, as built for `target` with `features`.
    pub(super) fn of(target: &str, features: &[String]) -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", target]);
        cargo.args(["--manifest-path", "examples/Cargo.toml", "--features", &features.join(",")]);
        let told = output(cargo.current_dir(paths::root()))?;
        let metadata = serde_json::from_str(&told).context("what cargo metadata says")?;
        let crates = linked(&metadata)?.into_iter().map(Crate::of).collect::<Result<_>>()?;
        let libc = match target.ends_with("musl") {
            true => "musl (Expat, Copyright 2005-2020 Rich Felker, et al.)",
            false => {
                "the GNU C Library (LGPL-2.1 or later, see /usr/share/common-licenses/LGPL-2.1; its source \
                 is Debian's package glibc, and this program's source lets you link it anew)"
            }
        };
        Ok(Self { crates, libc })
    }

    /// Of the C library.
    pub(super) fn libc(&self) -> &'static str {
        self.libc
    }

    /// All notices, each text once.
    pub(super) fn text(&self) -> String {
        let mut text =
            "The crates that xen-virtio-blk is linked from, and their licences:\n\n".to_owned();
        let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for it in &self.crates {
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "  {} {}: {}", it.name, it.version, it.licence);
            for notice in &it.texts {
                texts.entry(notice).or_default().push(&it.name);
            }
        }
        for (notice, crates) in texts {
            let _ = write!(text, "\n\n---- {}\n\n{}\n", crates.join(", "), notice.trim_end());
        }
        text
    }
}

impl Crate {
    fn of(package: &MetadataPackage) -> Result<Self> {
        let dir = package.manifest_path.parent().unwrap_or(Path::new(""));
        let mut texts = BTreeSet::new();
        for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
            let is_notice = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];
            if path.is_file() && is_notice.iter().any(|start| name.starts_with(start)) {
                texts.insert(
                    fs::read_to_string(&path)
                        .with_context(|| format!("reading {}", path.display()))?,
                );
            }
        }
        Ok(Self {
            name: package.name.clone(),
            version: package.version.clone(),
            licence: package
                .license
                .clone()
                .with_context(|| format!("{} states no licence", package.name))?,
            texts: texts.into_iter().collect(),
        })
    }
}

/// The crates of others that end up in the root's program: what only runs while it is built is none of it.
fn linked(metadata: &Metadata) -> Result<Vec<&MetadataPackage>> {
    let nodes: BTreeMap<_, _> =
        metadata.resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let packages: BTreeMap<_, _> = metadata.packages.iter().map(|it| (&it.id, it)).collect();
    let is_macro = |id: &String| {
        let kinds = packages.get(id).into_iter().flat_map(|it| &it.targets).flat_map(|it| &it.kind);
        kinds.into_iter().any(|kind| kind == "proc-macro")
    };
    let mut left = vec![metadata.resolve.root.as_ref().context("cargo metadata names no root")?];
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        if is_macro(id) || !seen.insert(id) {
            continue;
        }
        let deps = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        let linked = deps.filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        left.extend(linked.map(|dep| &dep.pkg));
    }
    let mut linked: Vec<_> = seen.into_iter().filter_map(|id| packages.get(id).copied()).collect();
    linked.retain(|package| package.source.is_some());
    linked.sort_by_key(|package| (&package.name, &package.version));
    Ok(linked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notices_are_of_what_is_linked_and_of_nothing_else() {
        let licences = Licences::of("x86_64-unknown-linux-musl", &[]).unwrap();
        let names: Vec<_> = licences.crates.iter().map(|it| it.name.as_str()).collect();
        for linked in ["clap", "rustix", "vm-memory", "tracing"] {
            assert!(names.contains(&linked), "{linked} is missing in {names:?}");
        }
        for other in ["serde_derive", "syn", "virtio-drivers", "xen-store", "imago", "clap_mangen"]
        {
            assert!(!names.contains(&other), "{other}");
        }
        assert!(licences.text().contains("Permission is hereby granted"));
        assert!(licences.libc().contains("musl"));
    }
}
