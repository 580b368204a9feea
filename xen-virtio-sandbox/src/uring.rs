use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, squeue};

use crate::State;
use crate::report::is_unknown;

/// `IORING_REGISTER_FILES_UPDATE` (linux/io_uring.h).
const FILES_UPDATE: u8 = 6;

/// Restrictions of an io_uring. Its operations aren't system calls, so seccomp doesn't see them: an
/// unrestricted ring can open files and connect sockets.
///
/// `io_uring_setup` isn't allowed in the sandbox, so rings are created and restricted before
/// [`Sandbox::enter`](crate::Sandbox::enter). Later their files are registered:
///
/// ```
/// use io_uring::{IoUring, opcode};
/// use xen_virtio_sandbox::RingRestrictions;
/// use std::os::fd::AsRawFd;
///
/// # fn main() -> std::io::Result<()> {
/// # let made: std::io::Result<IoUring> = IoUring::builder().setup_r_disabled().build(8);
/// # if made.is_err() { return Ok(()); } // no io_uring here
/// let ring: IoUring = IoUring::builder().setup_r_disabled().build(8)?;
/// ring.submitter().register_files(&[-1])?; // a table of one file, which is none yet
/// RingRestrictions::new(&[opcode::Read::CODE]).register(&ring)?;
/// ring.submitter().register_enable_rings()?;
/// // … enter the sandbox; later:
/// # let image = std::fs::File::open("/dev/zero")?;
/// ring.submitter().register_files_update(0, &[image.as_raw_fd()])?;
/// // Entries name the file by its index there: `types::Fixed(0)`.
/// # Ok(())
/// # }
/// ```
///
/// Operations must use registered files (`IOSQE_FIXED_FILE`), so that they can't access other
/// descriptors. After the ring is enabled, nothing can be registered but other files in the places of those
/// (`IORING_REGISTER_FILES_UPDATE`). For disks `virtio_blk_dev::RingPool` does all this; this type is for other
/// devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingRestrictions<'a> {
    operations: &'a [u8],
}

impl<'a> RingRestrictions<'a> {
    /// Allows only these operations (`IORING_OP_…`; `io_uring::opcode::….CODE`).
    #[must_use]
    pub const fn new(operations: &'a [u8]) -> Self {
        Self { operations }
    }

    /// Registers the restrictions. The ring must be disabled (`IORING_SETUP_R_DISABLED`); they take
    /// effect when it is enabled.
    ///
    /// Returns [`State::Missing`] on kernels older than Linux 5.10.
    ///
    /// # Errors
    /// `EBADFD` if the ring isn't disabled, `EBUSY` if it already has restrictions.
    pub fn register<S: squeue::EntryMarker, C: cqueue::EntryMarker>(
        self,
        ring: &IoUring<S, C>,
    ) -> std::io::Result<State> {
        let required = squeue::Flags::FIXED_FILE;
        let allowed = required | squeue::Flags::ASYNC;
        let mut restrictions = vec![
            Restriction::register_op(FILES_UPDATE),
            Restriction::sqe_flags_allowed(allowed.bits()),
            Restriction::sqe_flags_required(required.bits()),
        ];
        restrictions.extend(self.operations.iter().map(|op| Restriction::sqe_op(*op)));
        match ring.submitter().register_restrictions(&mut restrictions) {
            Ok(()) => Ok(State::On),
            Err(error) if is_unknown(&error) => Ok(State::Missing(
                "the kernel is older than Linux 5.10, which has io_uring restrictions".into(),
            )),
            Err(error) => Err(error),
        }
    }
}
