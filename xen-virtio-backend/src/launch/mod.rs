//! How the processes of guests are started, and found again.

mod confine;
mod error;
mod exec;
mod isolation;
mod program;
mod thread;

use std::{io, sync::Arc};

use xen_ioreq::{DeviceModel, DomId, ServerId};

use crate::{
    backend::Backend,
    guest::MapBudget,
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

    /// Starts the process of a guest, and connects to it. What comes of it is not waited for. If it takes the place of one
    /// that was killed, `left` is the IOREQ server that this one has left.
    ///
    /// # Errors
    /// It can't be started.
    fn launch<B: Backend>(
        &self,
        key: GuestKey,
        map_budget: MapBudget,
        left: Option<ServerId>,
        setup: B::Setup,
    ) -> Result<Launched, LaunchError>;

    /// Connects to the processes that an earlier supervisor has started and that still run.
    fn running(&self) -> Vec<(GuestKey, Launched)>;
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
