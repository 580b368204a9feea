//! Where messages go.

use std::sync::Arc;

use virtio_dev::IrqLine;

/// What messages do: whoever owns the transport knows which address raises what, as of a GICv2m frame
/// or an ITS. Asked only when the driver writes registers; what is raised then is kept.
pub trait MsiLines: Send {
    /// What a write of `data` to `address` raises: a line, each time once. `None` if nothing listens
    /// there; the message is lost then, as it would be on a bus.
    ///
    /// The driver chooses both values, and may choose any number of them in a row.
    fn line(&self, address: u64, data: u32) -> Option<Arc<dyn IrqLine>>;
}

impl<F: Fn(u64, u32) -> Option<Arc<dyn IrqLine>> + Send> MsiLines for F {
    fn line(&self, address: u64, data: u32) -> Option<Arc<dyn IrqLine>> {
        self(address, data)
    }
}
