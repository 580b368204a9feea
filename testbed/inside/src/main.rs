//! A backend whose guests' processes are as those of any other, and try what they must not be able to do.
//!
//! `from-inside [--no-sandbox]` seems to serve guests with entropy (device 4). In place of making such a device, the
//! process of the guest tries what the file /run/attempt says when it is started, `ACTION [ARGUMENT]…`. What came of it
//! is in the log. What the action needs is opened before the process is confined.

#[path = "../../../xen-virtio-sandbox/trial/attempts.rs"]
mod attempts;
#[path = "../../../xen-virtio-sandbox/trial/call.rs"]
mod call;
mod device;
#[path = "../../../xen-virtio-sandbox/trial/rings.rs"]
mod rings;
mod xen;

use std::{env, io, process::ExitCode};

use backend_process::{Logging, chain, output};
use xen_virtio_backend::{Backend, daemon::Options};

use device::Attempts;

/// What is done once the process is confined.
type Action = Box<dyn FnOnce() -> io::Result<String> + Send>;

fn main() -> ExitCode {
    if let Some(code) = xen_virtio_backend::guest_process::<Attempts>() {
        return code;
    }
    let logging = match Logging::start() {
        Ok(logging) => logging,
        Err(error) => return output::failure(Attempts::NAME, error),
    };
    let mut options = Options::new("/run/from-inside");
    options.isolation.sandbox = !env::args().any(|arg| arg == "--no-sandbox");
    let result = xen_virtio_backend::run(Attempts, options);
    logging.end(Attempts::NAME, &result.map_err(|error| chain(&error).to_string()))
}
