//! How a program logs: to its standard error, without ever waiting for it.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
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
        let filter = EnvFilter::try_from_default_env();
        let unusable = match &filter {
            Err(error)
                if std::env::var_os(EnvFilter::DEFAULT_ENV).is_some_and(|it| !it.is_empty()) =>
            {
                Some(chain(error).to_string())
            }
            _ => None,
        };
        tracing_subscriber::fmt()
            .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
            .with_writer(queue.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // They would be printed, and printing may wait or panic.
            .log_internal_errors(false)
            .init();
        panic::set_hook(Box::new(log_panic));
        if let Some(error) = unusable {
            warn!(
                error,
                "RUST_LOG can't be used, so the log has the level info: set it to a level (error, warn, info, debug) or unset it"
            );
        }
        Ok(Self(queue))
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
