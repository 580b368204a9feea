//! Which Rust does what stable Rust doesn't.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A toolchain that takes unstable options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unstable {
    /// rustup's nightly.
    Nightly,
    /// The one at hand, told to take them: a project's tests may, its releases may not.
    Bootstrap,
}

impl Unstable {
    pub(crate) fn find() -> Self {
        let nightly = quiet(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
        if nightly { Self::Nightly } else { Self::Bootstrap }
    }

    /// A program of the toolchain.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Self::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", program]);
                command
            }
            Self::Bootstrap => {
                let mut command = Command::new(program);
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Bootstrap => "the default toolchain with RUSTC_BOOTSTRAP=1",
        }
    }

    /// Its target, as directories are named.
    pub(crate) fn host(self) -> Result<String> {
        let text = crate::log::output(self.command("rustc").arg("-vV"))?;
        let host = text.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(host.context("rustc -vV names no host")?.to_owned())
    }

    /// Whether a program built with AddressSanitizer runs here; `dir` is for trying it.
    pub(crate) fn has_address_sanitizer(self, dir: &Path) -> Result<bool> {
        fs::create_dir_all(dir)?;
        let (source, program) = (dir.join("probe.rs"), dir.join("probe"));
        fs::write(&source, "fn main() {}\n")?;
        let mut rustc = self.command("rustc");
        rustc.args(["--edition=2024", "-Zsanitizer=address", "-o"]).arg(&program).arg(&source);
        Ok(quiet(&mut rustc) && quiet(&mut Command::new(&program)))
    }
}

/// Installs a cargo tool unless it is there in some version.
pub(crate) fn ensure_tool(subcommand: &str, version: &str) -> Result<()> {
    if quiet(Command::new("cargo").args([subcommand, "--version"])) {
        return Ok(());
    }
    let package = format!("cargo-{subcommand}@{version}");
    eprintln!("  installing {package}");
    let mut install = Command::new("cargo");
    install.args(["install", "--locked", &package]);
    if !install.status().context("starting cargo install")?.success() {
        bail!(
            "{package} could not be installed: is crates.io reached, and is a C++ compiler there?"
        );
    }
    Ok(())
}

/// Whether the command can be started and succeeds.
pub(crate) fn quiet(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
