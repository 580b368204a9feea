//! How others end the sleep of a guest's thread.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backend_process::chain;
use tracing::debug;
use virtio_worker::Wake;
use xen_evtchn::{EventChannel, Loopback};

/// The thread's end. It sleeps on the guest's event channels: with a bell among them it needs nothing else to be woken
/// by, and can sleep in a read of them.
pub(crate) struct GuestWake {
    waker: GuestWaker,
    /// Where there is no bell.
    own: Option<Wake>,
}

/// Ends the thread's sleep, or the next one. Any thread may do that.
#[derive(Clone)]
pub(crate) struct GuestWaker {
    /// There is a wake-up that the thread has not seen. Whoever sets this rings.
    pending: Arc<AtomicBool>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

impl GuestWake {
    /// # Errors
    /// There is no bell, and no descriptor instead.
    pub(crate) fn new<E: EventChannel>(bell: Option<&Arc<Loopback<E>>>) -> io::Result<Self> {
        let pending = Arc::default();
        let (ring, own): (Arc<dyn Fn() + Send + Sync>, _) = match bell.map(Arc::clone) {
            Some(bell) => {
                let ring = move || {
                    if let Err(error) = bell.ring() {
                        debug!(error = %chain(&error), "the guest's thread can't be woken");
                    }
                };
                (Arc::new(ring), None)
            }
            None => {
                let own = Wake::new()?;
                let waker = own.waker();
                (Arc::new(move || waker.wake()), Some(own))
            }
        };
        Ok(Self { waker: GuestWaker { pending, ring }, own })
    }

    pub(crate) fn waker(&self) -> GuestWaker {
        self.waker.clone()
    }

    /// Whether it is rung among the guest's events.
    pub(super) fn has_bell(&self) -> bool {
        self.own.is_none()
    }

    /// What to wait for beside the guest's events.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.own.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is a wake-up that was not taken. To be asked before a sleep: the bell's event may have been read
    /// among the guest's, and there is no other one before the wake-up is taken.
    pub(super) fn is_pending(&self) -> bool {
        self.waker.pending.load(Ordering::Acquire)
    }

    /// Takes the wake-up, if there is one. After the sleep, and before the caller looks for what it was woken for.
    pub(super) fn take(&mut self) -> io::Result<()> {
        let taken = self.own.as_mut().map_or(Ok(()), |own| own.wait(None, Some(Duration::ZERO)));
        self.waker.pending.swap(false, Ordering::AcqRel);
        taken
    }
}

impl GuestWaker {
    /// What this thread did before is visible to the woken thread.
    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            (self.ring)();
        }
    }
}
