//! How the processes of guests are started, and found again.

mod confine;
mod error;
mod exec;
mod isolation;
mod program;
mod thread;

use std::{io, sync::Arc};

use backend_process::chain;
use tracing::{debug, warn};
use xen_ioreq::{DeviceModel, DomId, IoreqServer, ServerId};

use crate::{
    backend::Backend,
    guest::MapBudget,
    host::Host,
    node::Sharing,
    process::{GuestKey, Line},
};

pub use error::LaunchError;
pub use exec::Exec;
pub use isolation::Isolation;
pub use program::{guest_process, guest_process_on};
pub use thread::InThread;

/// Starts the processes of guests.
pub trait Launch: Send + 'static {
    /// Device-model operations, by which the supervisor hears whether a guest lives.
    type Model: DeviceModel;

    /// Such operations on one guest.
    ///
    /// # Errors
    /// The kernel's device can't be opened, or not be restricted.
    fn model(&self, domid: DomId) -> io::Result<Arc<Self::Model>>;

    /// Starts the process of a guest, and connects to it. What comes of it is not waited for.
    ///
    /// # Errors
    /// It can't be started.
    fn launch<B: Backend>(
        &self,
        key: GuestKey,
        map_budget: MapBudget,
        setup: B::Setup,
    ) -> Result<Launched, LaunchError>;

    /// What answers the vCPUs that wait for the server of a process that was killed, and destroys the server. It may take
    /// seconds.
    fn release(&self, domid: DomId, server: ServerId) -> Release;

    /// Connects to the processes that an earlier supervisor has started and that still run.
    fn running(&self) -> Vec<(GuestKey, Launched)>;
}

/// See [`Launch::release`].
pub type Release = Box<dyn FnOnce() + Send>;

/// The same over any hypervisor.
fn release_on<H: Host>(host: &H, domid: DomId, server: ServerId) {
    let handles = match host.open(domid, Sharing::Foreign) {
        Ok(handles) => handles,
        Err(error) => {
            warn!(domid, error = %chain(&error), "the guest's vCPUs that wait for its ended process can't be answered: `xl destroy` the guest");
            return;
        }
    };
    match IoreqServer::take_over(handles.model, handles.memory, handles.events, server) {
        Ok(server) => drop(server),
        // A process that ends by itself has destroyed it.
        Err(error) => {
            debug!(domid, error = %chain(&error), "there is no IOREQ server left of the process that has ended")
        }
    }
}

/// A process, and a connection to it.
pub struct Launched {
    pub(crate) line: Line,
    pub(crate) process: Box<dyn Process>,
}

/// A process that runs, or has run.
pub(crate) trait Process: Send {
    /// Its number, if it has one of its own.
    fn pid(&self) -> Option<u32>;

    /// Waits for its end. By what it was ended, if not by itself.
    fn wait(&mut self) -> Option<String>;

    /// Ends it.
    fn kill(&self);
}
