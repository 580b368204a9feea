//! The server in Xen.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::device_model::DeviceModel;
use crate::error::{Error, Operation};
use crate::server_id::ServerId;

/// The server in Xen. Dropping it destroys the server, if it is its own.
pub(crate) struct Registration<M: DeviceModel> {
    pub(crate) model: Arc<M>,
    pub(crate) id: ServerId,
    is_own: bool,
}

impl<M: DeviceModel> Registration<M> {
    /// A new server.
    pub(crate) fn create(model: Arc<M>) -> Result<Self, Error> {
        match model.create_ioreq_server() {
            Ok(id) => Ok(Self { model, id, is_own: true }),
            Err(source) => {
                let operation = Operation::Create;
                Err(Error::DeviceModel { domid: model.domid(), operation, source })
            }
        }
    }

    /// A server that may be another process's.
    pub(crate) fn of(model: Arc<M>, id: ServerId) -> Self {
        Self { model, id, is_own: false }
    }

    /// Whether it is nobody else's, nor to be left to anybody.
    pub(crate) fn set_own(&mut self, own: bool) {
        self.is_own = own;
    }

    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    pub(crate) fn set_state(&self, enabled: bool) -> Result<(), Error> {
        let set = self.model.set_ioreq_server_state(self.id, enabled);
        set.map_err(|source| self.error(Operation::Enable, source))
    }

    pub(crate) fn map(&self, range: RangeInclusive<u64>) -> Result<(), Error> {
        let operation = Operation::MapRange(*range.start(), *range.end());
        let mapped = self.model.map_mmio_range(self.id, range);
        mapped.map_err(|source| self.error(operation, source))
    }

    pub(crate) fn unmap(&self, range: RangeInclusive<u64>) -> Result<(), Error> {
        let operation = Operation::UnmapRange(*range.start(), *range.end());
        let unmapped = self.model.unmap_mmio_range(self.id, range);
        unmapped.map_err(|source| self.error(operation, source))
    }

    fn error(&self, operation: Operation, source: io::Error) -> Error {
        Error::DeviceModel { domid: self.model.domid(), operation, source }
    }
}

impl<M: DeviceModel> Drop for Registration<M> {
    fn drop(&mut self) {
        if self.is_own {
            // If this fails, the guest is gone, and its servers with it.
            let _ = self.model.destroy_ioreq_server(self.id);
        }
    }
}
