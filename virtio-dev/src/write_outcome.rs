//! What became of a driver's write.

use std::fmt;

use crate::Status;

/// What became of a write to the registers, and so when its trap is to be answered.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write is done: answer it.
    Done,
    /// The driver notified this queue: answer the write, then call
    /// [`Queues::notify`](crate::Queues::notify), so that the vCPU does not wait for the queue.
    Notify(u16),
    /// The driver reset the device or stopped a queue, and queues still drain: leave the write
    /// unanswered until [`ControlPlane::is_pending`](crate::ControlPlane::is_pending) is false.
    Pending(PendingWrite),
    /// The write was not taken, which its driver may not expect: answer it. Worth a line in a log
    /// with a limit, as it is the first trace of a driver that stops half-way.
    Ignored(Ignored),
}

/// A write whose answer tells the driver that queues have stopped, while they have not.
///
/// The registers say so, too: the status is not 0, `QueueReady` is 1. But Linux's virtio_mmio does
/// not poll the status after it wrote 0, and takes a `QueueReady` that reads 1 after it wrote 0 for a
/// bug: to them, the answer to the write is the end of the device's accesses to memory
/// (virtio 1.2 §2.4.1, §4.2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingWrite {
    /// A write of 0 to the status.
    Reset,
    /// A write to `QueueReady` or `QueueReset` that stops this queue.
    QueueStop(u16),
}

/// Why a write was not taken: nothing changed, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// No register is there that a driver may write. Drivers of version 1 of the transport write
    /// there (`GuestPageSize`, `QueueAlign`, `QueuePFN`).
    NoRegister,
    /// Registers take aligned writes of their own width (virtio 1.2 §4.1.3.1, §4.2.2.2).
    Width,
    /// A reset is under way.
    ResetPending,
    /// A driver may not make this of the device status, which is given.
    Status(Status),
    /// The device can't work with the features that the driver chose,
    /// [`driver_features`](crate::ControlPlane::driver_features).
    FeaturesRefused,
    /// The features are final, until the driver resets the device (virtio 1.2 §2.2.1).
    FeaturesFinal,
    /// There are two pages of features.
    FeaturePage,
    /// The device has no queue of this index, or none that is ready if it was notified.
    NoQueue,
    /// A ready queue keeps its size and its addresses.
    QueueIsReady,
    /// Not a size that the queue can have. It has none now, and does not become ready without one.
    QueueSize,
    /// The queue can't become ready now: it has no size, or the driver has not set `DRIVER`, or it
    /// has set `FAILED`.
    QueueNotReady,
    /// `VIRTIO_F_RING_RESET` is not negotiated.
    QueueReset,
    /// A queue of virtio-pci is enabled by a 1, and disabled by a reset only (virtio 1.2 §4.1.4.3.2).
    QueueEnable,
    /// The function has no MSI-X vector of this number: the event has none now.
    NoVector,
    /// No field of the configuration space that the driver may write now.
    Config,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::NoRegister => "no register is there that a driver may write",
            Self::Width => "registers take aligned writes of their own width",
            Self::ResetPending => "a reset is under way",
            Self::Status(status) => {
                return write!(f, "the device status {:#x} cannot become that", status.bits());
            }
            Self::FeaturesRefused => "the device cannot work with the driver's features",
            Self::FeaturesFinal => "the features are final until the device is reset",
            Self::FeaturePage => "there are two pages of features",
            Self::NoQueue => "there is no such queue, or it is not ready",
            Self::QueueIsReady => "a ready queue keeps its size and its addresses",
            Self::QueueSize => "the queue cannot have this size",
            Self::QueueNotReady => "the queue cannot become ready in this state",
            Self::QueueReset => "VIRTIO_F_RING_RESET is not negotiated",
            Self::QueueEnable => "queue_enable takes a 1: only a reset disables a queue",
            Self::NoVector => "there is no such MSI-X vector, and the event has none now",
            Self::Config => "no field is there that the driver may write now",
        };
        f.write_str(why)
    }
}
