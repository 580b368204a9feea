//! What a write asks of the transport's caller.

use std::fmt;

use crate::Status;

/// What a write asks of the transport's caller, to be done before the write is answered.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// `DRIVER_OK`: make a [`LiveQueue`](crate::LiveQueue) of every ready queue and start serving
    /// it. Kicks that came before are not lost: treat each queue as notified.
    Activate,
    /// This queue became ready after `DRIVER_OK`: start it, as notified.
    QueueReady(u16),
    /// A kick: the queue has new available buffers.
    Notify(u16),
    /// The driver takes the queue back: stop its worker, drop its live queue (the rings are no
    /// longer mapped then), call [`MmioTransport::queue_stopped`](crate::MmioTransport::queue_stopped),
    /// then answer.
    QueueStop(u16),
    /// The driver gave up (`FAILED`): stop all queues, then answer. There is nothing to call: no
    /// queue starts and no interrupt is raised any more, until the driver resets the device.
    Failed,
    /// The driver resets the device: stop all queues, call
    /// [`MmioTransport::reset_done`](crate::MmioTransport::reset_done), then answer. May come again
    /// if the driver writes again before it is done.
    Reset,
    /// The driver wrote to a field of the configuration space that it may write.
    ConfigWritten,
    /// Nothing, as the write was not taken, which its driver may not expect. Worth a line in a log
    /// with a limit: it is the first trace of a driver that stops half-way.
    Ignored(Ignored),
}

/// Why a write was not taken: nothing changed, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// No register is there that a driver may write. Drivers of version 1 of the transport write
    /// there (`GuestPageSize`, `QueueAlign`, `QueuePFN`).
    NoRegister,
    /// Control registers take aligned writes of 32 bits (virtio 1.2 §4.2.2.2).
    Width,
    /// A reset is under way.
    ResetPending,
    /// A driver may not make this of the device status, which is given.
    Status(Status),
    /// The device can't work with the features that the driver chose,
    /// [`driver_features`](crate::MmioTransport::driver_features).
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
    /// No field of the configuration space that the driver may write now.
    Config,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::NoRegister => "no register is there that a driver may write",
            Self::Width => "control registers take aligned writes of 32 bits",
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
            Self::Config => "no field is there that the driver may write now",
        };
        f.write_str(why)
    }
}
