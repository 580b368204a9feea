//! How a queue reaches its driver: the descriptors that the frontend gave.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use virtio_dev::QueueEvents;

/// An eventfd of the frontend's, which it may replace at any time, also while the queue runs: QEMU
/// does so when the guest masks its interrupt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signal(Arc<Mutex<Option<File>>>);

impl Signal {
    /// Takes another descriptor, or none.
    pub(crate) fn set(&self, file: Option<File>) -> io::Result<()> {
        if let Some(file) = &file {
            // Nobody may make this process wait by filling the counter.
            let flags = fcntl_getfl(file)?;
            fcntl_setfl(file, flags | OFlags::NONBLOCK)?;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Signals once. A full counter (EAGAIN) has been signalled already, and of a descriptor that
    /// can't be written nobody is waiting.
    pub(crate) fn signal(&self) {
        if let Some(file) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = rustix::io::write(file.as_fd(), &1_u64.to_ne_bytes());
        }
    }
}

/// The call and the error descriptor of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    pub(crate) call: Signal,
    pub(crate) err: Signal,
}

impl QueueEvents for Events {
    fn used_buffer(&self) {
        self.call.signal();
    }

    /// The frontend keeps the status register, so that is all there is to tell it.
    fn needs_reset(&self) {
        self.err.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn a_full_counter_keeps_nobody_waiting() {
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let events = Events::default();
        events.used_buffer();
        events.call.set(Some(File::from(event.try_clone().unwrap()))).unwrap();
        assert!(fcntl_getfl(&event).unwrap().contains(OFlags::NONBLOCK), "it would wait forever");
        events.used_buffer();
        events.needs_reset();
        let mut count = [0; 8];
        rustix::io::read(&event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), u64::MAX - 1);
        events.used_buffer();
        rustix::io::read(&event, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
