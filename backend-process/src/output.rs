//! What a program prints, where it may be that nobody reads.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// Prints a line to the standard output, as `println!` does, but without its panic.
///
/// # Errors
/// It could not be written; `BrokenPipe` if whoever read it is gone, as in `program | head -n 1`.
/// A program whose answer is its exit code goes on all the same.
pub fn line(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints the error that `program` ends by to the standard error, for a program that doesn't log;
/// one that does has [`Logging::end`](crate::Logging::end).
pub fn failure(program: &str, error: impl Display) -> ExitCode {
    // There is nobody left to tell that it can't be told.
    let _ = writeln!(io::stderr(), "{program}: {error:#}");
    ExitCode::FAILURE
}
