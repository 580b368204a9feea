//! Which release of the project a package is of.

use crate::log::output;
use crate::paths;
use anyhow::{Context as _, Result};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// What its files and its changelog say of it. Two packages of the same release are equal to the byte.
pub(super) struct Release {
    /// The workspace's.
    pub(super) version: String,
    /// The commit it is built from, if git knows.
    pub(super) commit: Option<String>,
    /// Seconds since 1970 (`SOURCE_DATE_EPOCH`, reproducible-builds.org): of the commit, not of the build.
    pub(super) epoch: u64,
}

impl Release {
    /// The checkout's.
    pub(super) fn of_checkout() -> Result<Self> {
        let git = |args: &[&str]| {
            let told = output(Command::new("git").args(args).current_dir(paths::root()));
            told.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
        let committed = git(&["log", "-1", "--format=%ct"]);
        let epoch = match std::env::var("SOURCE_DATE_EPOCH").ok().or(committed) {
            Some(seconds) => seconds.parse().with_context(|| format!("{seconds:?} is no time"))?,
            None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        Ok(Self { version: env!("CARGO_PKG_VERSION").to_owned(), commit, epoch })
    }

    /// With the revision of the packaging.
    pub(super) fn debian(&self) -> String {
        format!("{}-1", self.version)
    }

    /// The time as a Debian changelog has it.
    pub(super) fn date(&self) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["--utc", "--rfc-email", "--date"]);
        Ok(output(date.arg(format!("@{}", self.epoch)))?.trim().to_owned())
    }
}
