use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, squeue};

use crate::State;
use crate::report::is_unknown;

/// What a ring may carry out. Its operations are no system calls of their own and pass seccomp by:
/// a ring without restrictions opens files and connects sockets.
///
/// A ring is made and restricted before [`Sandbox::enter`](crate::Sandbox::enter), after which
/// there is no `io_uring_setup`, and gets its file and is enabled when it is used:
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
/// RingRestrictions::new(&[opcode::Read::CODE]).register(&ring)?;
/// // … enter the sandbox; later:
/// # let image = std::fs::File::open("/dev/zero")?;
/// ring.submitter().register_files(&[image.as_raw_fd()])?;
/// ring.submitter().register_enable_rings()?;
/// // Entries name the file by its index there: `types::Fixed(0)`.
/// # Ok(())
/// # }
/// ```
///
/// Registered files are required (`IOSQE_FIXED_FILE`), so that an operation reaches a file that was
/// registered and no other descriptor; once the ring is enabled, nothing more is registered.
/// `virtio_blk_dev::PreparedRing` does this itself; it is for other devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingRestrictions<'a> {
    operations: &'a [u8],
}

impl<'a> RingRestrictions<'a> {
    /// No operations but these (`IORING_OP_…`; `io_uring::opcode::….CODE`).
    #[must_use]
    pub const fn new(operations: &'a [u8]) -> Self {
        Self { operations }
    }

    /// Registers the restrictions of a ring that is disabled (`IORING_SETUP_R_DISABLED`). They hold
    /// from when it is enabled.
    ///
    /// [`State::Missing`] is a kernel before Linux 5.10.
    ///
    /// # Errors
    /// `EBADFD` of a ring that isn't disabled, `EBUSY` of one that has restrictions.
    pub fn register<S: squeue::EntryMarker, C: cqueue::EntryMarker>(
        self,
        ring: &IoUring<S, C>,
    ) -> std::io::Result<State> {
        let required = squeue::Flags::FIXED_FILE;
        let allowed = required | squeue::Flags::ASYNC;
        let mut restrictions = vec![
            Restriction::sqe_flags_allowed(allowed.bits()),
            Restriction::sqe_flags_required(required.bits()),
        ];
        restrictions.extend(self.operations.iter().map(|op| Restriction::sqe_op(*op)));
        match ring.submitter().register_restrictions(&mut restrictions) {
            Ok(()) => Ok(State::On),
            Err(error) if is_unknown(&error) => {
                Ok(State::Missing("restrictions of io_uring take Linux 5.10 or newer".into()))
            }
            Err(error) => Err(error),
        }
    }
}
