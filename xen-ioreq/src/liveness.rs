//! Whether a guest still exists.

use std::io;
use std::sync::Arc;

use crate::device_model::DeviceModel;
use crate::server_id::ServerId;

/// Checks whether the guest of a server still exists. Can be used by any thread, as long as the server is not dropped.
///
/// `XEN_DMOP_nr_vcpus` can't tell: a domain that is being destroyed stays in Xen until the last of its
/// pages is unmapped, and a backend holds some. Until then that operation succeeds; but Xen destroys the
/// domain's IOREQ servers first of all (`ioreq_server_destroy_all`).
#[derive(Debug)]
pub struct Liveness<M: DeviceModel> {
    model: Arc<M>,
    id: ServerId,
}

impl<M: DeviceModel> Liveness<M> {
    /// Of the guest of `model`, whose server `id` any process may have made.
    pub fn new(model: Arc<M>, id: ServerId) -> Self {
        Self { model, id }
    }

    /// Whether the server still exists. `false` means that the guest is gone or being destroyed, and that its
    /// memory should be unmapped, so that Xen can free it.
    ///
    /// # Errors
    ///
    /// The call failed for another reason: there is no memory, or the descriptor is restricted to another
    /// domain. It isn't known then whether the guest exists.
    pub fn is_alive(&self) -> io::Result<bool> {
        match self.model.ioreq_server_info(self.id) {
            Ok(_) => Ok(true),
            // No such server: destroyed with the domain. No such domain: all of it is gone.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl<M: DeviceModel> Clone for Liveness<M> {
    fn clone(&self) -> Self {
        Self { model: Arc::clone(&self.model), id: self.id }
    }
}
