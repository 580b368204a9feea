//! Accesses that the guest's process answers.

use std::ops::RangeInclusive;

use rustix::io::Errno;
use xen_evtchn::EventChannel;
use xen_foreignmem::ForeignMemory;
use xen_ioreq::{DeviceModel, Error, IoreqServer};

/// Has the guest's accesses sent here, unless they are already: of a process that was killed, and whose server this is
/// now, or of a device that was let go of.
pub(super) fn claim<M: DeviceModel, F: ForeignMemory, E: EventChannel>(
    server: &mut IoreqServer<M, F, E>,
    range: RangeInclusive<u64>,
) -> Result<(), Error> {
    match server.map_range(range) {
        Err(error) if is_claimed(&error) => Ok(()),
        mapped => mapped,
    }
}

/// Whether accesses can't be claimed as they are already.
fn is_claimed(error: &Error) -> bool {
    let source = match error {
        Error::DeviceModel { source, .. } => Errno::from_io_error(source),
        _ => None,
    };
    source == Some(Errno::EXIST)
}
