//! The limits that the system sets a process, and what to do about them.

use std::{error::Error, fmt, io, iter};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tracing::{debug, warn};

use crate::chain;

/// Raises the soft limit of open files to the hard one, and gives the limit that holds then
/// (`None`: there is none). A disk takes several descriptors, and the usual soft limit of 1024 is
/// for the sake of programs that call `select`.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            debug!(from = limit.current, to = limit.maximum, "raised the limit of open files");
            limit.maximum
        }
        Err(error) => {
            warn!(error = %chain(&error), limit = limit.current, "the limit of open files can't be raised: raise the soft limit (`ulimit -Sn`) where the program is started, or expect disks to be refused when it is reached");
            limit.current
        }
    }
}

/// Whether `error` says that there are no descriptors left, of this process (EMFILE) or of the
/// system (ENFILE).
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What to do about an error that comes of a limit, itself or one of its sources; `None` for any other.
pub fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .find_map(advice_on)
}

fn advice_on(error: &io::Error) -> Option<String> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(format!(
            "this process may open no more than {} files: raise the hard limit (LimitNOFILE= of \
             its systemd unit, or `ulimit -Hn`) and start it again",
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
        )),
        Errno::NFILE => Some(
            "the system has no more open files left: raise the sysctl fs.file-max, or find the process \
             that holds most of them (`lsof`)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// `error` as the source of one whose text is the [`advice`] on it, if there is any; its kind stays.
pub fn explain(source: io::Error) -> io::Error {
    match advice(&source) {
        Some(advice) => io::Error::new(source.kind(), Explained { advice, source }),
        None => source,
    }
}

/// An error that comes of a limit.
#[derive(Debug)]
struct Explained {
    advice: String,
    source: io::Error,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.advice)
    }
}

impl Error for Explained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_of_open_files_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let low = before.maximum.map_or(256, |most| most.min(256));
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), ..before }).unwrap();
        assert_eq!(raise_open_files(), before.maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        assert_eq!(raise_open_files(), before.maximum);
    }

    #[test]
    fn no_descriptors_left_comes_with_what_to_do() {
        for (errno, hint) in [(Errno::MFILE, "LimitNOFILE="), (Errno::NFILE, "fs.file-max")] {
            let error = io::Error::from(errno);
            assert!(is_out_of_files(&error));
            let (kind, text) = (error.kind(), error.to_string());
            let explained = explain(error);
            assert_eq!(explained.kind(), kind);
            let shown = chain(&explained).to_string();
            assert!(shown.contains(hint) && shown.ends_with(&text), "{shown}");
            let source = explained.get_ref().and_then(|inner| inner.source());
            let source = source.and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(errno.raw_os_error()));
        }
        let other = io::Error::from(Errno::NOENT);
        assert!(!is_out_of_files(&other));
        assert_eq!(explain(other).raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    }
}
