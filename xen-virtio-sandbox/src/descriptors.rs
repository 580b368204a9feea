use std::fs;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::SandboxError;

const TASKS: &str = "/proc/self/task";
const DESCRIPTORS: &str = "/proc/self/fd";

/// Checks that the process is single-threaded.
pub(crate) fn check_threads() -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Proc { path: TASKS, source };
    match fs::read_dir(TASKS).map_err(failed)?.count() {
        1 => Ok(()),
        threads => Err(SandboxError::Threads(threads)),
    }
}

/// Checks that no descriptor is a directory, and, if `expected` is given, that each is either one of
/// these or a standard descriptor.
pub(crate) fn check(expected: Option<&[RawFd]>) -> Result<(), SandboxError> {
    for (fd, path) in open()? {
        // Follows the link to the open file itself, even if the path doesn't exist any more.
        let metadata = fs::metadata(format!("{DESCRIPTORS}/{fd}"));
        if metadata.is_ok_and(|metadata| metadata.is_dir()) {
            return Err(SandboxError::Directory { fd, path });
        }
        if fd > 2 && expected.is_some_and(|expected| !expected.contains(&fd)) {
            return Err(SandboxError::Unexpected { fd, path });
        }
    }
    Ok(())
}

/// The open descriptors, except the one used to list them.
fn open() -> Result<Vec<(RawFd, PathBuf)>, SandboxError> {
    let failed = |source| SandboxError::Proc { path: DESCRIPTORS, source };
    let mut numbers: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir(DESCRIPTORS).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    // The descriptor used above is closed by now, so reading its link fails.
    let target = |fd| fs::read_link(format!("{DESCRIPTORS}/{fd}")).ok().map(|path| (fd, path));
    Ok(numbers.into_iter().filter_map(target).collect())
}
