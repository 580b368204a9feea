//! The program, where it runs as the process of a guest.

use std::{env, ffi::OsStr, fs::File, io, os::fd::AsFd, process::ExitCode};

use backend_process::{Logging, chain, limits, output, signals};
use rustix::{stdio::dup2_stdin, thread::set_name};
use tracing::{info, warn};
use xen_virtio_sandbox::ThreadFilters;

use super::confine::confine;
use crate::{
    backend::Backend,
    host::{Host, Xen},
    process::serve,
};

/// The first argument of such a process. The second one is for those who look at the list of processes.
pub(super) const GUEST_PROCESS: &str = "--guest-process";

/// Serves a guest, if this process was started for that by the program's own supervisor, and gives its exit code then.
///
/// To be called first in `main`, by a program that calls [`run`](crate::run): the supervisor runs the program that it is
/// itself for each guest. [`main`](crate::main) does this.
pub fn guest_process<B: Backend>() -> Option<ExitCode> {
    guest_process_on::<B, Xen>(&Xen)
}

/// The same over another hypervisor, for tests.
pub fn guest_process_on<B: Backend, H: Host>(host: &H) -> Option<ExitCode> {
    if env::args_os().nth(1).as_deref() != Some(OsStr::new(GUEST_PROCESS)) {
        return None;
    }
    let mut logging = None;
    let result = run::<B, H>(host, &mut logging);
    Some(match logging {
        Some(logging) => Logging::end(logging, B::NAME, &result),
        None => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => output::failure(B::NAME, error),
        },
    })
}

fn run<B: Backend, H: Host>(host: &H, logging: &mut Option<Logging>) -> Result<(), String> {
    let failed = |error: io::Error| format!("the process of a guest can't be started: {error}");
    // The file that it runs is called `exe`.
    let name = B::NAME.as_bytes();
    let _ = std::ffi::CString::new(&name[..name.len().min(15)]).map(|name| set_name(&name));
    signals::survive_failed_writes().map_err(failed)?;
    // They are for the supervisor, which has the same name: `pkill -HUP` reaches both.
    signals::block(&signals::ORDERS).map_err(failed)?;
    limits::raise_open_files();
    // The socket where it is reached is its standard input.
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let null = File::open("/dev/null").map_err(failed)?;
    dup2_stdin(&null).map_err(|error| failed(error.into()))?;
    drop(null);
    let confine = |key, confinement| {
        let confined = match confinement {
            Some(confinement) => Some(confine(key, confinement)?),
            None => None,
        };
        *logging = Some(Logging::start().map_err(|error| chain(&error).to_string())?);
        Ok(match confined {
            Some((filters, report)) => {
                info!(domid = key.domid, sharing = %key.sharing, sandbox = %report, "serving a guest");
                filters
            }
            None => {
                warn!(domid = key.domid, sharing = %key.sharing, "serving a guest by a process that isn't confined");
                ThreadFilters::NONE
            }
        })
    };
    serve::<B, H>(listener, host, confine).map_err(|error| chain(&error).to_string())
}
