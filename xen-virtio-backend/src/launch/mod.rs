//! How the processes of guests are started, and found again.

mod cgroups;
mod confine;
mod error;
mod exec;
mod isolation;
mod program;
mod server_file;
mod thread;

use std::{io, sync::Arc};

use xen_ioreq::{DeviceModel, DomId, ServerId};

use crate::{
    backend::Backend,
    guest::GuestOptions,
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

    /// Starts the process of a guest, which takes over the IOREQ server `server`, and connects to it. What comes of it is
    /// not waited for. Before it runs, it is written down where [`earlier`](Self::earlier) finds it which server it has.
    ///
    /// # Errors
    /// It can't be started. Nothing is written down.
    fn launch<B: Backend>(
        &self,
        key: GuestKey,
        options: GuestOptions,
        server: ServerId,
        backend: &B,
    ) -> Result<Launched, LaunchError>;

    /// Has the log of the processes that are started from now on contain what this filter lets pass.
    fn set_log_filter(&mut self, filter: &str) {
        let _ = filter;
    }

    /// What an earlier supervisor has left. Connects to the processes that still run.
    fn earlier(&self) -> Vec<Earlier>;

    /// The IOREQ server of the guest's process, which has ended, is gone, or another process's.
    fn forget(&self, key: GuestKey);
}

/// A process of a guest that an earlier supervisor has started.
pub struct Earlier {
    pub(crate) key: GuestKey,
    /// The server that it has, or has left.
    pub(crate) server: ServerId,
    /// `None` if it has ended.
    pub(crate) launched: Option<Launched>,
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
