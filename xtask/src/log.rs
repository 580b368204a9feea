//! A step's log file, and the commands whose output goes there.

use anyhow::{Context as _, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TAIL: usize = 25;

pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts an empty log.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let file = OpenOptions::new().append(true).open(&path)?;
        Ok(Self { path, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the command with its output in the log; a failure shows the last lines.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let status = self.status(command)?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "{} failed ({status})\n{}\n  the whole log: {}",
            command.get_program().display(),
            self.tail()?,
            self.path.display()
        )
    }

    /// Runs the command with its output in the log and leaves judging it to the caller.
    pub(crate) fn status(&self, command: &mut Command) -> Result<std::process::ExitStatus> {
        writeln!(&self.file, "$ {command:?}")?;
        command
            .stdin(Stdio::null())
            .stdout(self.file.try_clone()?)
            .stderr(self.file.try_clone()?)
            .status()
            .with_context(|| format!("starting {}", command.get_program().display()))
    }

    fn tail(&self) -> Result<String> {
        let text = String::from_utf8_lossy(&fs::read(&self.path)?).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let start = lines.len().saturating_sub(TAIL);
        Ok(lines[start..].iter().map(|line| format!("  | {line}\n")).collect())
    }
}

/// The command's standard output, which must be a success.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    if !out.status.success() {
        bail!(
            "{} failed ({}): {}",
            command.get_program().display(),
            out.status,
            String::from_utf8_lossy(&out.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
