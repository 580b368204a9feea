//! The supervisor's process: its main loop, its connection to xenstored, its lock.

mod contact;
mod main_loop;
mod program;
mod run_dir;

pub use contact::{Connect, Contact, ContactError, open};
pub use main_loop::{Daemon, DaemonError, Extras, Metrics, Orders};
pub use program::{Options, RunError, main, run};
pub use run_dir::{RunDir, RunDirError};
