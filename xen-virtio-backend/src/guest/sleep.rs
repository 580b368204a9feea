//! What a guest's thread sleeps on.

use std::{io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use xen_evtchn::EventChannel;
use xen_foreignmem::ForeignMemory;
use xen_ioreq::{DeviceModel, IoreqServer};

use super::wake::GuestWake;
use crate::{backend::Device, node::DeviceId};

/// Sleeps until there is a trap at `server`, `wake` is woken, one of `devices` has what it waits for, or `timeout` is
/// over. Gives which devices these are, each maybe several times.
pub(super) fn sleep<'a, M: DeviceModel, F: ForeignMemory, E: EventChannel, D: Device + 'a>(
    wake: &mut GuestWake,
    server: &mut IoreqServer<M, F, E>,
    devices: impl Iterator<Item = &'a D>,
    timeout: Option<Duration>,
) -> io::Result<Vec<DeviceId>> {
    if wake.is_pending() {
        wake.take()?;
        return Ok(Vec::new());
    }
    let mut theirs = Vec::new();
    devices.for_each(|device| device.wait_for(&mut theirs));
    if theirs.is_empty() && timeout.is_none() && wake.has_bell() {
        // As always with devices that have threads of their own.
        server.wait();
        wake.take()?;
        return Ok(Vec::new());
    }
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let all = theirs.iter().map(|(_, fd)| *fd).chain([server.as_fd()]).chain(wake.fd());
    let mut fds: Vec<_> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let ready = theirs.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
    let ready = ready.map(|((id, _), _)| *id).collect();
    drop(fds);
    wake.take()?;
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use std::{iter, ops::Range, sync::Arc};

    use virtio_dev::WriteOutcome;
    use xen_evtchn::{Loopback, fake::FakeEvtchn};
    use xen_foreignmem::fake::FakeForeignMemory;
    use xen_ioreq::fake::{FakeDeviceModel, FakeDomain};

    use super::*;
    use crate::{fake::Watchdog, register_address::RegisterAddress};

    enum NoDevice {}

    impl Device for NoDevice {
        type Figures = ();
        type Order = ();
        fn read(&mut self, _: RegisterAddress, _: &mut [u8]) {
            match *self {}
        }
        fn write(&mut self, _: RegisterAddress, _: &[u8]) -> WriteOutcome {
            match *self {}
        }
        fn bar(&self) -> Option<Range<u64>> {
            match *self {}
        }
        fn kick(&mut self, _: u16) {
            match *self {}
        }
        fn figures(&self) {
            match *self {}
        }
    }

    /// A guest's thread, without devices.
    struct Sleeper {
        server: IoreqServer<FakeDeviceModel, FakeForeignMemory, FakeEvtchn>,
        wake: GuestWake,
    }

    impl Sleeper {
        fn new() -> Self {
            let domain = FakeDomain::default();
            let events = domain.event_channel().unwrap();
            let bell = Arc::new(Loopback::bind(&events).unwrap());
            let wake = GuestWake::new(Some(&bell)).unwrap();
            let (model, memory) = (domain.device_model(), domain.foreign_memory());
            let mut server = IoreqServer::create(model, memory, events).unwrap();
            server.set_bell(bell);
            server.enable().unwrap();
            Self { server, wake }
        }

        fn answer_requests(&mut self) {
            while self.server.next_request().unwrap().is_some() {}
        }

        fn sleep(&mut self) {
            sleep(&mut self.wake, &mut self.server, iter::empty::<&NoDevice>(), None).unwrap();
        }
    }

    #[test]
    fn a_wake_up_whose_event_was_read_among_the_guests_ends_the_next_sleep() {
        let _watchdog = Watchdog::start();
        let mut sleeper = Sleeper::new();
        sleeper.answer_requests();
        sleeper.wake.waker().wake();
        sleeper.answer_requests();
        sleeper.sleep();
        assert!(!sleeper.wake.is_pending());
        // And the next wake-up rings again.
        sleeper.wake.waker().wake();
        sleeper.sleep();
    }
}
