//! The server's event channels.

use std::{io, sync::Arc};

use xen_evtchn::{EventChannel, Loopback};
use xen_foreignmem::ForeignMemory;

use super::{IoreqServer, PendingSlot};
use crate::{device_model::DeviceModel, error::Error, page::SLOTS};

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> IoreqServer<M, F, E> {
    /// Unmasks the ports of the slots that were checked, and has these checked again.
    pub(super) fn unmask(&mut self) -> Result<(), Error> {
        let unmasked = self.evtchn.unmask(&self.masked);
        unmasked.map_err(|source| self.channel_error("unmask", source))?;
        self.masked.clear();
        self.pending.extend(self.recheck.drain(..).map(|vcpu| PendingSlot { vcpu, event: false }));
        Ok(())
    }

    /// Has this server take the events of `bell`, a loopback of its event-channel descriptor: whoever rings it ends a
    /// [`wait`](Self::wait), and makes [`as_fd`](Self::as_fd) readable.
    pub fn set_bell(&mut self, bell: Arc<Loopback<E>>) {
        self.bell = Some(bell);
    }

    /// Sleeps until there may be a request, or the [bell](Self::set_bell) is rung. This is one system call where the
    /// descriptor blocks ([`Evtchn::open_blocking`](xen_evtchn::Evtchn::open_blocking)). If it fails, the next
    /// [`next_request`](Self::next_request) says so.
    pub fn wait(&mut self) {
        if self.pending.is_empty() && self.masked.is_empty() && self.failure.is_none() {
            self.wait_failure = self.read_events(E::wait).err();
        }
    }

    /// Reads a batch of events. Returns false if there are none.
    pub(super) fn read_events(
        &mut self,
        read: impl FnOnce(&E, &mut [u32]) -> io::Result<usize>,
    ) -> Result<bool, Error> {
        // One of them may be the bell's.
        let mut ports = [0; SLOTS + 1];
        match read(&self.evtchn, &mut ports) {
            Ok(count) => {
                self.is_drained = count < ports.len();
                for port in &ports[..count] {
                    match self.by_port.binary_search_by_key(port, |&(port, _)| port) {
                        Ok(at) => {
                            self.pending.push(PendingSlot { vcpu: self.by_port[at].1, event: true })
                        }
                        Err(_) if self.is_of_bell(*port) => self.masked.push(*port),
                        // A port that was unbound meanwhile, or isn't this server's; it stays masked.
                        Err(_) => self.stats.spurious += 1,
                    }
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // By a signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {
                let reset = self.evtchn.reset();
                reset.map_err(|source| self.channel_error("reset", source))?;
                // It isn't known which events were lost: any vCPU may wait, and any port be masked.
                let all = (0..self.ports.len())
                    .map(|vcpu| PendingSlot { vcpu: vcpu as u16, event: true });
                self.pending.extend(all);
                self.masked.extend(self.bell.iter().flat_map(|bell| bell.ports()));
                Ok(true)
            }
            Err(source) => Err(self.channel_error("read", source)),
        }
    }

    fn is_of_bell(&self, port: u32) -> bool {
        self.bell.as_ref().is_some_and(|bell| bell.ports().contains(&port))
    }

    fn channel_error(&self, action: &'static str, source: io::Error) -> Error {
        Error::EventChannel { domid: self.domid(), action, source }
    }
}
