//! A program that serves a disk, from its start to its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cpu::Cores;
use crate::session::{Session, SharedMemory};

/// How long a program may take to listen on its socket.
const START: Duration = Duration::from_secs(10);

/// A running program, killed when dropped.
pub(crate) struct Process {
    child: Child,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` on the device's processor, where all of its threads will be.
    pub(crate) fn start(mut command: Command, cores: Cores, stderr: PathBuf) -> Result<Self> {
        let log = File::create(&stderr).context("making a file for the program's words")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A child inherits the processors of the thread that starts it.
        Cores::pin(cores.device)?;
        let child = command.spawn().with_context(|| format!("starting {command:?}"));
        Cores::pin(cores.client)?;
        Ok(Self { child: child?, stderr })
    }

    /// Connects once the program listens.
    pub(crate) fn connect(
        &mut self,
        socket: &Path,
        memory: &SharedMemory,
        image_len: u64,
    ) -> Result<Session> {
        let deadline = Instant::now() + START;
        while !socket.exists() {
            if let Some(status) = self.child.try_wait().context("looking after the program")? {
                bail!("the program ended with {status}: {}", self.words());
            }
            if Instant::now() > deadline {
                bail!("no socket after {START:?}: {}", self.words());
            }
            sleep(Duration::from_millis(5));
        }
        Session::connect(socket, memory, image_len)
            .with_context(|| format!("the program says: {}", self.words()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has said.
    pub(crate) fn words(&self) -> String {
        let words = fs::read_to_string(&self.stderr).unwrap_or_default();
        if words.trim().is_empty() { "nothing".to_owned() } else { words.trim().to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, as its client left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
