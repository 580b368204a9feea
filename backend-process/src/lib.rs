//! What the programs of this workspace share as processes: how they log, print, hear of signals
//! and deal with the limits that the system sets them. It knows neither Xen nor virtio.
//!
//! A backend's program starts like this:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use backend_process::{Logging, Signals, limits, signals};
//!
//! fn main() -> ExitCode {
//!     let logging = match Logging::start() {
//!         Ok(logging) => logging,
//!         Err(error) => return backend_process::output::failure("program", &error),
//!     };
//!     let result = run();
//!     logging.end("program", &result)
//! }
//!
//! fn run() -> std::io::Result<()> {
//!     signals::survive_failed_writes()?;
//!     limits::raise_open_files();
//!     let stop = Signals::new(&[signals::SIGTERM, signals::SIGINT])?;
//!     // … wait until `stop` is readable; `stop.take()` is how many came.
//! #   drop(stop);
//!     Ok(())
//! }
//! ```
//!
//! | what | why not the usual way |
//! |---|---|
//! | [`Logging`] | a log that can't be written, or that nobody reads, would end or stop who logs |
//! | [`chain`] | an error's own text leaves out what caused it |
//! | [`output`] | `println!` panics when its reader is gone |
//! | [`signals`] | SIGXFSZ ends a process that writes beyond RLIMIT_FSIZE |
//! | [`Notify`] | the service manager's READY, STOPPING and WATCHDOG, without its library |
//! | [`limits`] | the soft limit of open files is 1024 by default, where a disk needs several |

mod chain;
pub mod limits;
mod log_queue;
mod logging;
mod notify;
pub mod output;
pub mod signals;

pub use chain::{Chain, chain};
pub use logging::{FilterError, Logging};
pub use notify::Notify;
pub use signals::Signals;
