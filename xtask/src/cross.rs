//! Our own binaries, static: through rustup's musl target, else, for arm64, with Debian's compiler.

use crate::apt::{self, Apt, Package, Sources};
use crate::architecture::Architecture;
use crate::cache::{Artefact, Cache, Recipe};
use crate::log::output;
use crate::{mirror, paths};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Debian's cross compiler for C, Xen and Linux.
pub(crate) const GCC_PREFIX: &str = "aarch64-linux-gnu-";
const GNU: &str = "aarch64-unknown-linux-gnu";
const TOOLS: [&str; 3] = ["--package", "testbed-tools", "--bins"];
/// The backends, and what tries their sandbox: built only for runs that use them.
const EXAMPLES: [&str; 2] = ["--package", "xen-virtio-examples"];
const TRIALS: [&str; 4] = ["--package", "xen-virtio-sandbox", "--package", "testbed-inside"];

/// The version of the cross compiler for C.
pub(crate) fn gcc_version() -> Result<String> {
    let text = output(Command::new(format!("{GCC_PREFIX}gcc")).arg("-dumpfullversion"))?;
    Ok(text.trim().to_owned())
}

/// What compiles Rust for a machine that may be another one.
pub(crate) enum Compiler {
    /// The toolchain in use, with rust-lld.
    Rustup(Architecture),
    /// Debian's rustc-web of the host's own suite, with the arm64 std of the very same version. For arm64.
    Debian(Artefact),
}

impl Compiler {
    /// Chooses, for arm64; `XEN_VIRTIO_CROSS=debian` insists on Debian's.
    pub(crate) fn choose(cache: &Cache, update: bool) -> Result<Self> {
        let insists = std::env::var("XEN_VIRTIO_CROSS").is_ok_and(|choice| choice == "debian");
        if !insists && has_musl(Architecture::Arm64, cache)? {
            return Ok(Self::Rustup(Architecture::Arm64));
        }
        debians(cache, update).map(Self::Debian)
    }

    /// Chooses.
    pub(crate) fn choose_for(architecture: Architecture, cache: &Cache) -> Result<Self> {
        match architecture {
            Architecture::Arm64 => Self::choose(cache, false),
            Architecture::Amd64 if has_musl(architecture, cache)? => Ok(Self::Rustup(architecture)),
            Architecture::Amd64 => bail!(
                "Rust has no std for {0} here, and rustup can't add it: `rustup target add {0}`, or \
                 have your distribution's Rust compiler bring it",
                architecture.musl()
            ),
        }
    }

    /// Builds the guests' tools and these binaries of the examples; gives where they are. Cargo's own
    /// cache makes it quick when nothing changed.
    pub(crate) fn build(&self, examples: &BTreeSet<&str>) -> Result<PathBuf> {
        self.compile(&TOOLS)?;
        let bins = examples.iter().flat_map(|example| ["--bin", example]);
        let examples: Vec<_> = EXAMPLES.into_iter().chain(TRIALS).chain(bins).collect();
        if examples.len() > EXAMPLES.len() + TRIALS.len() {
            self.compile(&examples)?;
        }
        Ok(self.release())
    }

    /// Builds one binary of the examples with these features; gives where it is.
    pub(crate) fn example(&self, name: &str, features: &[String]) -> Result<PathBuf> {
        let features = features.join(",");
        let args = [&EXAMPLES[..], &["--locked", "--bin", name, "--features", &features]];
        self.compile(&args.concat())?;
        Ok(self.release().join(name))
    }

    /// Has cargo build what `package` says, its name second.
    fn compile(&self, package: &[&str]) -> Result<()> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--quiet"]).args(package);
        cargo.args(["--target", self.target()]).arg("--target-dir").arg(target_dir());
        let status = cargo.stdin(Stdio::null()).status().context("starting cargo")?;
        if !status.success() {
            bail!("building {} for {} failed", package[1], self.target());
        }
        Ok(())
    }

    fn release(&self) -> PathBuf {
        target_dir().join(self.target()).join("release")
    }

    pub(crate) fn version(&self) -> Result<String> {
        let rustc = match self {
            Self::Rustup(_) => "rustc".into(),
            Self::Debian(tree) => tree.path("usr/bin/rustc"),
        };
        let mut command = Command::new(rustc);
        if let Self::Debian(tree) = self {
            command.env("LD_LIBRARY_PATH", libraries(tree)?);
        }
        let version = output(command.arg("--version"))?;
        Ok(format!("{} ({})", version.trim(), self.target()))
    }

    pub(crate) fn target(&self) -> &'static str {
        match self {
            Self::Rustup(architecture) => architecture.musl(),
            Self::Debian(_) => GNU,
        }
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(paths::root());
        // It travels in an initramfs: the smaller the better.
        cargo.envs([
            ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
            ("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
        ]);
        match self {
            Self::Rustup(architecture) => {
                let target = architecture.musl().to_uppercase().replace('-', "_");
                cargo.env(format!("CARGO_TARGET_{target}_LINKER"), "rust-lld");
            }
            Self::Debian(tree) => {
                cargo
                    .env("RUSTC", tree.path("usr/bin/rustc"))
                    .env("LD_LIBRARY_PATH", libraries(tree).unwrap_or_default())
                    .env(
                        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                        format!("{GCC_PREFIX}gcc"),
                    )
                    .env(
                        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                        "-C target-feature=+crt-static",
                    );
            }
        }
        cargo
    }
}

fn target_dir() -> PathBuf {
    paths::results("cargo")
}

/// Whether the toolchain in use has that std, now that rustup was asked for it.
fn has_musl(architecture: Architecture, cache: &Cache) -> Result<bool> {
    let target = architecture.musl();
    let is_there = || {
        output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))
            .is_ok_and(|dir| Path::new(dir.trim()).exists())
    };
    if is_there() {
        return Ok(true);
    }
    let log = cache.log("rustup-target")?;
    let added = cache.timed("rustup-target", Duration::from_secs(10), || {
        Ok(log
            .status(Command::new("rustup").args(["target", "add", target]))
            .is_ok_and(|status| status.success()))
    })?;
    Ok(added && is_there())
}

fn debians(cache: &Cache, update: bool) -> Result<Artefact> {
    let native = output(Command::new("dpkg").arg("--print-architecture"))?;
    let native = native.trim();
    let required = mirror::host_targets()?
        .iter()
        .map(|target| format!("{} {} {}", target.uri, target.suite, target.component))
        .collect();
    let sources = Sources { required, optional: Vec::new() };
    let debs = cache.path("debs");
    let architectures = format!("{native},arm64");
    let apt = Apt::new(cache.path("apt-rust"), debs.clone(), &architectures, sources)?;
    let kept = cache.path("rust-packages.json");
    let known = fs::read(&kept).ok().filter(|_| !update);
    let known = known.and_then(|text| serde_json::from_slice(&text).ok());
    let packages: Vec<Package> = match known {
        Some(packages) => packages,
        None => cache.timed("rust-packages", Duration::from_secs(20), || {
            apt.update(&cache.log("rust-packages")?)?;
            compiler_packages(&apt, native)
        })?,
    };
    fs::write(kept, serde_json::to_vec(&packages)?)?;
    let recipe = packages.iter().fold(Recipe::new("rust-debian", 30), |recipe, package| {
        recipe.part("package", &package.file)
    });
    cache.get(recipe, |shop| {
        apt.download(&packages, shop.log)?;
        apt::unpack(&debs, &packages, shop.out, shop.log)
    })
}

/// The compiler and both std's. The host has libc and the like, so of what the solver
/// brings only these are taken.
fn compiler_packages(apt: &Apt, native: &str) -> Result<Vec<Package>> {
    let ours = ["rustc-web", "libstd-rust-web", "libllvm"];
    let closure =
        apt.closure(&["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev:arm64"]).context(
            "rustup has no arm64 std here, and Debian's suite of this host no rustc-web",
        )?;
    Ok(closure
        .into_iter()
        .filter(|package| ours.iter().any(|name| package.name.starts_with(name)))
        .filter(|package| package.architecture == native || package.name == "libstd-rust-web-dev")
        .collect())
}

/// Where Debian's compiler has its own shared libraries.
fn libraries(tree: &Artefact) -> Result<PathBuf> {
    let gnu = output(Command::new("gcc").arg("-print-multiarch"))?;
    Ok(tree.path("usr/lib").join(gnu.trim()))
}
