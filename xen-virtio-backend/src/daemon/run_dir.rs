//! One daemon a domain: the lock in the run directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

/// Why the run directory is not ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunDirError {
    /// Another process has it.
    #[error(
        "another {program} ({}) serves the devices of this domain already (it holds {}): stop that one first, or \
         leave it to serve",
        .pid.as_ref().map_or("of unknown process id".into(), |pid| format!("process {pid}")),
        path.display()
    )]
    Busy {
        /// The program's name.
        program: &'static str,
        /// The lock.
        path: PathBuf,
        /// Of the other process, as it wrote it there.
        pid: Option<u32>,
    },
    /// It can't be made, or locked.
    #[error("the run directory {} can't be used: run as root, or name another by --run-dir", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The run directory, locked until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct RunDir {
    _lock: File,
}

impl RunDir {
    /// Makes and locks the directory at `path` for `program`. Two daemons that follow the same toolstack would both take on each
    /// device.
    ///
    /// # Errors
    /// Another process has it, or it can't be made.
    pub fn lock(path: &Path, program: &'static str) -> Result<Self, RunDirError> {
        let unusable = |source| RunDirError::Unusable { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(unusable)?;
        let file = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(&file)
            .map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let read = lock.take(16).read_to_string(&mut pid);
                let pid = read.ok().and_then(|_| pid.trim().parse().ok());
                return Err(RunDirError::Busy { program, path: file, pid });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", process::id()));
        written.map_err(unusable)?;
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_of_the_first_ones_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = RunDir::lock(&path, "program").unwrap();
        for _ in 0..2 {
            let error = RunDir::lock(&path, "program").unwrap_err();
            assert!(
                matches!(&error, RunDirError::Busy { pid, .. } if *pid == Some(process::id())),
                "{error}"
            );
            assert!(error.to_string().contains(&format!("process {}", process::id())), "{error}");
        }
        drop(first);
        RunDir::lock(&path, "program").expect("what an ended daemon has left is no obstacle");
    }

    #[test]
    fn a_lock_is_never_taken_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("lock")).unwrap();
        let error = RunDir::lock(dir.path(), "program").unwrap_err();
        assert!(matches!(error, RunDirError::Unusable { .. }), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }
}
