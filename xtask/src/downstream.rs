//! `cargo xtask downstream`: builds and tests a backend that has the packaged libraries, and nothing else of the checkout.

use crate::log::output;
use crate::paths;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The backend's package, as it is in `tests/downstream`.
const BACKEND: &str = "digest-backend";

/// What `cargo metadata` tells.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    /// The registries that it may be published to; all, if there is no list.
    publish: Option<Vec<String>>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary one.
    kind: Option<String>,
}

/// True if the backend's tests pass.
pub(crate) fn run() -> Result<bool> {
    let results = paths::target().join("downstream");
    let [archives, packages, workspace] =
        ["archives", "packages", "workspace"].map(|name| results.join(name));
    // cargo takes an archive of the same name and version for unchanged.
    for dir in [&archives, &packages, &workspace] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
    }
    let libraries = libraries(&paths::root().join("Cargo.toml"))?;
    package(&libraries, &archives)?;
    unpack(&libraries, &archives.join("package"), &packages)?;
    copy(&paths::root().join("tests/downstream"), &workspace)?;
    // The versions that the rest of the repository is tested with.
    let lock = "Cargo.lock";
    fs::copy(paths::root().join(lock), workspace.join(lock)).context("copying Cargo.lock")?;
    let backend = metadata(&workspace.join("Cargo.toml"))?.packages;
    let backend = backend.iter().find(|package| package.name == BACKEND);
    let used = used(backend.context("the backend's package has another name")?, &libraries);
    fs::create_dir(workspace.join(".cargo"))?;
    fs::write(workspace.join(".cargo/config.toml"), patches(&used, &packages))?;
    let cargo = |command: &[&str]| -> Result<bool> {
        let mut cargo = Command::new("cargo");
        cargo.args(command).current_dir(&workspace).env("CARGO_TARGET_DIR", results.join("build"));
        // The environment is that of the backend's author.
        cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("RUSTFLAGS");
        Ok(cargo.status().context("starting cargo")?.success())
    };
    Ok(cargo(&["test"])? && cargo(&["clippy", "--all-targets", "--", "-D", "warnings"])?)
}

fn metadata(manifest: &Path) -> Result<Metadata> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--manifest-path"]).arg(manifest);
    serde_json::from_str(&output(&mut cargo)?).context("cargo metadata's answer")
}

/// The packages of a workspace that are published.
fn libraries(manifest: &Path) -> Result<Vec<Package>> {
    let mut packages = metadata(manifest)?.packages;
    packages.retain(|package| package.publish.as_ref().is_none_or(|to| !to.is_empty()));
    Ok(packages)
}

/// Makes the archives that `cargo publish` would upload, of the checkout as it is. They aren't built: the backend is.
fn package(libraries: &[Package], archives: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["package", "--quiet", "--locked", "--allow-dirty", "--no-verify", "--target-dir"]);
    cargo.arg(archives).current_dir(paths::root());
    libraries.iter().for_each(|library| {
        cargo.args(["-p", &library.name]);
    });
    if !cargo.status().context("starting cargo")?.success() {
        bail!("the libraries can't be packaged: cargo 1.90 or newer is needed");
    }
    Ok(())
}

/// Unpacks an archive of each library.
fn unpack(libraries: &[Package], archives: &Path, packages: &Path) -> Result<()> {
    fs::create_dir_all(packages)?;
    for Package { name, version, .. } in libraries {
        let mut tar = Command::new("tar");
        // With the time of now: files in an archive are all as old as each other, and cargo would take changed ones for
        // unchanged.
        tar.arg("-C").arg(packages).arg("-xzmf");
        output(tar.arg(archives.join(format!("{name}-{version}.crate"))))?;
    }
    Ok(())
}

/// Copies a directory with everything that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in paths::files_below(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().context("a file without a directory")?)?;
        fs::copy(&file, &copy).with_context(|| format!("copying {}", file.display()))?;
    }
    Ok(())
}

/// The libraries that `package` is built on, directly or through others, by name.
fn used<'a>(package: &'a Package, libraries: &'a [Package]) -> BTreeMap<&'a str, &'a Package> {
    let mut used = BTreeMap::new();
    let mut left = vec![package];
    while let Some(package) = left.pop() {
        for Dependency { name, kind } in &package.dependencies {
            let library = libraries.iter().find(|library| library.name == *name);
            if let Some(library) = library.filter(|_| kind.is_none())
                && used.insert(name.as_str(), library).is_none()
            {
                left.push(library);
            }
        }
    }
    used
}

/// A configuration of cargo's that gives the unpacked archives in place of what crates.io has.
fn patches(libraries: &BTreeMap<&str, &Package>, packages: &Path) -> String {
    let mut config = String::from("[patch.crates-io]\n");
    for (name, Package { version, .. }) in libraries {
        let path: PathBuf = packages.join(format!("{name}-{version}"));
        let _ = writeln!(config, "{name} = {{ path = {path:?} }}");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::{Dependency, Package, patches, used};
    use std::path::Path;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, kind)| Dependency {
            name: (*name).to_owned(),
            kind: kind.map(str::to_owned),
        });
        Package {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            publish: None,
            dependencies: dependencies.collect(),
        }
    }

    #[test]
    fn libraries_are_patched_that_the_backend_is_built_on() {
        let libraries = [
            package("a", &[("b", None), ("elsewhere", None)]),
            package("b", &[("a", Some("dev"))]),
            package("c", &[("a", None)]),
        ];
        let backend = package("backend", &[("a", None)]);
        let used = used(&backend, &libraries);
        assert_eq!(used.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            patches(&used, Path::new("/p")),
            "[patch.crates-io]\na = { path = \"/p/a-0.1.0\" }\nb = { path = \"/p/b-0.1.0\" }\n"
        );
    }
}
