//! How a program logs: to its standard error, without ever waiting for it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    error::Error,
    ffi::OsString,
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
    sync::OnceLock,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    stdio,
};
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

use crate::{chain, log_queue::LogQueue};

/// How long the end of a program waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Gives the log another filter. There is one log in a process.
static SET_FILTER: OnceLock<Box<dyn Fn(EnvFilter) -> bool + Send + Sync>> = OnceLock::new();

/// Why the log's filter stays as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// It is none.
    #[error(
        "{filter:?} is no filter of the log: give a level (error, warn, info, debug, trace), or levels of parts, as \
         info,xen_store=debug"
    )]
    Invalid {
        /// It.
        filter: String,
        /// What is wrong with it.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Nothing is logged by this process.
    #[error("this process has no log")]
    NoLog,
}

/// The program's log, from its start to its end.
///
/// Lines are handed to a thread that writes them to the standard error. Nobody who logs waits for
/// that: of more than 1 MiB that can't be written in time, and of what can't be written at all (a
/// full file system, a pipe that was closed), lines are lost. The log says where and how many as
/// soon as it can be written again. Panics are logged as errors.
pub struct Logging(LogQueue);

impl Logging {
    /// Starts logging, at the level `info` or as the environment's `RUST_LOG` says.
    ///
    /// # Errors
    /// There is no thread to be had.
    ///
    /// # Panics
    /// If it was called before in this process.
    pub fn start() -> io::Result<Self> {
        let queue = LogQueue::start(StandardError)?;
        let (filter, unusable) = initial_filter(env::var_os(EnvFilter::DEFAULT_ENV));
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(queue.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // They would be printed, and printing may wait or panic.
            .log_internal_errors(false)
            .with_filter_reloading();
        let handle = log.reload_handle();
        log.init();
        let _ = SET_FILTER.set(Box::new(move |filter| handle.reload(filter).is_ok()));
        panic::set_hook(Box::new(log_panic));
        if let Some(error) = unusable {
            warn!(
                error,
                "RUST_LOG can't be used, so the log has the level info: set it to a level (error, warn, info, debug) or unset it"
            );
        }
        Ok(Self(queue))
    }

    /// Has the log of this process contain what `filter` says from now on, as `RUST_LOG` does at the start: a level
    /// (error, warn, info, debug, trace), or one for each part of the program, as `info,xen_store=debug`.
    ///
    /// # Errors
    /// It is no filter, or this process has no log.
    pub fn set_filter(filter: &str) -> Result<(), FilterError> {
        let parsed = EnvFilter::builder().parse(filter);
        // An empty one would let errors pass, and is a level that was forgotten.
        let parsed = match parsed {
            Ok(parsed) if !filter.trim().is_empty() => parsed,
            Ok(_) => return Err(FilterError::Invalid { filter: filter.to_owned(), source: None }),
            Err(source) => {
                let source = Some(Box::from(source));
                return Err(FilterError::Invalid { filter: filter.to_owned(), source });
            }
        };
        match SET_FILTER.get() {
            Some(set) if set(parsed) => Ok(()),
            _ => Err(FilterError::NoLog),
        }
    }

    /// Ends the program's log: says by what error it ends, if it does, and waits for what was
    /// logged to be written, a second at most.
    pub fn end<E: Display>(self, program: &str, result: &Result<(), E>) -> ExitCode {
        if let Err(error) = result {
            self.0.push(format!("{program}: {error:#}\n").as_bytes());
        }
        if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl Drop for Logging {
    /// Waits for what was logged to be written, a second at most.
    fn drop(&mut self) {
        self.0.drain(LAST_LINES);
    }
}

/// The filter that the environment says, or `info`; and why what it says can't be used. An empty one says nothing.
fn initial_filter(said: Option<OsString>) -> (EnvFilter, Option<String>) {
    let info = || EnvFilter::new("info");
    let Some(said) = said.filter(|said| !said.is_empty()) else { return (info(), None) };
    let parsed = said.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(|said| {
        EnvFilter::builder().parse(said).map_err(|error| chain(&error).to_string())
    });
    match parsed {
        Ok(filter) => (filter, None),
        Err(error) => (info(), Some(error)),
    }
}

fn log_panic(info: &panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    error!(
        thread = thread.name().unwrap_or("unnamed"),
        at = info.location().map(tracing::field::display),
        backtrace = (backtrace.status() == BacktraceStatus::Captured)
            .then(|| tracing::field::display(&backtrace)),
        "panicked, which is a fault of this program: {}",
        text.unwrap_or("without a text"),
    );
}

/// Descriptor 2 itself: whoever holds std's lock of it may be waiting.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(stdio::stderr(), text) {
                // Others may share it and have set it not to block.
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::from_borrowed_fd(stdio::stderr(), PollFlags::OUT)];
                    poll(&mut fds, None)?;
                }
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_without_a_usable_filter_has_the_level_info() {
        let of = |said: Option<&str>| initial_filter(said.map(OsString::from));
        for (said, filter, is_usable) in [
            (None, "info", true),
            (Some(""), "info", true),
            (Some("debug"), "debug", true),
            (Some("a=b=c"), "info", false),
        ] {
            let (its, error) = of(said);
            assert_eq!(
                (its.to_string().as_str(), error.is_none()),
                (filter, is_usable),
                "{said:?}"
            );
        }
    }
}
