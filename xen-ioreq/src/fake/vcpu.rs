//! A vCPU whose accesses trap.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::ioreq::FakeIoreq;
use super::machine::Machine;
use super::state::{Server, Slots, State};
use crate::server_id::ServerId;
use crate::sys::{
    IOREQ_TYPE_COPY, IOREQ_TYPE_INVALIDATE, STATE_IOREQ_INPROCESS, STATE_IOREQ_NONE,
    STATE_IOREQ_READY, STATE_IORESP_READY,
};

/// How many steps an access driven by a closure may take.
const STEPS: u32 = 1000;

/// How long a blocked vCPU sleeps before it sees whether the guest still runs.
const NAP: Duration = Duration::from_millis(10);

/// A virtual CPU of a [`FakeDomain`](super::FakeDomain).
///
/// Each access goes as on Xen (`xen/common/ioreq.c`): the highest enabled server that has all its bytes finds it in
/// the vCPU's slot and its event channel raised; the vCPU looks at the slot when it is notified. It comes
/// in three forms: blocking, for a thread that is the vCPU; `_with` a closure that runs the server for a step, for
/// one thread that is both; and `begin_`, to do the rest by hand.
///
/// As real ones do, it makes one access at a time.
#[derive(Clone, Debug)]
pub struct FakeVcpu {
    pub(super) machine: Arc<Machine>,
    pub(super) vcpu: u32,
}

impl FakeVcpu {
    /// Loads `size` bytes (1, 2, 4 or 8), blocking.
    ///
    /// # Errors
    ///
    /// See [`Fault`].
    pub fn read(&self, addr: u64, size: u8) -> Result<u64, Fault> {
        self.begin_read(addr, size)?.wait()
    }

    /// Stores the low `size` bytes (1, 2, 4 or 8) of `data`, blocking. As on Arm, the server is sent all of
    /// `data`, the whole register.
    ///
    /// # Errors
    ///
    /// See [`Fault`].
    pub fn write(&self, addr: u64, size: u8, data: u64) -> Result<(), Fault> {
        self.begin_write(addr, size, data)?.wait().map(drop)
    }

    /// Asks every enabled server to drop its mappings of the guest, blocking.
    ///
    /// # Errors
    ///
    /// See [`Fault`].
    pub fn invalidate(&self) -> Result<(), Fault> {
        self.begin_invalidate()?.wait().map(drop)
    }

    /// As [`read`](Self::read), with `step` as the server: it is called until the answer is there.
    ///
    /// # Errors
    ///
    /// See [`Fault`]; hung after a thousand steps.
    pub fn read_with(&self, addr: u64, size: u8, step: impl FnMut()) -> Result<u64, Fault> {
        self.begin_read(addr, size)?.drive(step)
    }

    /// As [`write`](Self::write), with `step` as the server: it is called until the answer is there.
    ///
    /// # Errors
    ///
    /// See [`Fault`]; hung after a thousand steps.
    pub fn write_with(
        &self,
        addr: u64,
        size: u8,
        data: u64,
        step: impl FnMut(),
    ) -> Result<(), Fault> {
        self.begin_write(addr, size, data)?.drive(step).map(drop)
    }

    /// As [`invalidate`](Self::invalidate), with `step` as the servers.
    ///
    /// # Errors
    ///
    /// See [`Fault`]; hung after a thousand steps.
    pub fn invalidate_with(&self, step: impl FnMut()) -> Result<(), Fault> {
        self.begin_invalidate()?.drive(step).map(drop)
    }

    /// Begins a load.
    ///
    /// # Errors
    ///
    /// No server takes it, or the vCPU does not run any more.
    pub fn begin_read(&self, addr: u64, size: u8) -> Result<Access, Fault> {
        self.begin(FakeIoreq { addr, read: true, ..copy(size) })
    }

    /// Begins a store.
    ///
    /// # Errors
    ///
    /// No server takes it, or the vCPU does not run any more.
    pub fn begin_write(&self, addr: u64, size: u8, data: u64) -> Result<Access, Fault> {
        self.begin(FakeIoreq { addr, data, ..copy(size) })
    }

    /// Begins to ask every enabled server to drop its mappings of the guest; it ends when all have answered. With
    /// no server, it has ended.
    ///
    /// # Errors
    ///
    /// The vCPU does not run any more, or a server's slot was in disorder.
    pub fn begin_invalidate(&self) -> Result<Access, Fault> {
        let request = FakeIoreq {
            kind: IOREQ_TYPE_INVALIDATE,
            size: 4,
            data: u64::MAX,
            ..FakeIoreq::default()
        };
        let mut state = self.running()?;
        let servers = state.servers.iter_mut().flatten().filter(|server| server.enabled);
        let legs = servers.map(|server| self.send(server, &request)).collect::<Result<_, _>>()?;
        Ok(self.access(legs, 4))
    }

    /// Begins a request with any fields, to one server.
    ///
    /// # Errors
    ///
    /// There is no such server, or the vCPU does not run any more.
    pub fn begin_raw(&self, id: ServerId, request: FakeIoreq) -> Result<Access, Fault> {
        let mut state = self.running()?;
        let server = state.server(id).map_err(|_| Fault::Abort)?;
        let leg = self.send(server, &request)?;
        Ok(self.access(vec![leg], 8))
    }

    fn begin(&self, request: FakeIoreq) -> Result<Access, Fault> {
        let mut state = self.running()?;
        let size = request.size as u8;
        let server = state.select(request.addr, size).ok_or(Fault::Abort)?;
        let leg = self.send(server, &request)?;
        Ok(self.access(vec![leg], size))
    }

    fn running(&self) -> Result<std::sync::MutexGuard<'_, State>, Fault> {
        let state = self.machine.state();
        match state.stopped(self.vcpu) {
            Some(fault) => Err(fault),
            None => Ok(state),
        }
    }

    fn send(&self, server: &Server, request: &FakeIoreq) -> Result<Leg, Fault> {
        if !server.send(self.vcpu, request) {
            return Err(Fault::Abort);
        }
        let port = server.ports[self.vcpu as usize];
        let slots = server.slots.clone();
        // What the kernel has answered, it also notifies.
        let notified = slots.slot(self.vcpu).state() == STATE_IORESP_READY;
        let raised = self.machine.hub.raise(self.machine.domid, port);
        raised.expect("the server's port is there");
        Ok(Leg { slots, port, seen: STATE_IOREQ_NONE, notified, answered: false })
    }

    fn access(&self, legs: Vec<Leg>, size: u8) -> Access {
        Access { vcpu: self.clone(), legs, size, data: u64::MAX }
    }
}

fn copy(size: u8) -> FakeIoreq {
    assert!(matches!(size, 1 | 2 | 4 | 8), "no instruction accesses {size} bytes");
    FakeIoreq { kind: IOREQ_TYPE_COPY, size: size.into(), count: 1, ..FakeIoreq::default() }
}

/// An access that one server, or several, are to answer.
#[derive(Debug)]
#[must_use = "an access that is given up blocks its vCPU's slot"]
pub struct Access {
    vcpu: FakeVcpu,
    legs: Vec<Leg>,
    size: u8,
    data: u64,
}

/// One server's part.
#[derive(Debug)]
struct Leg {
    slots: Slots,
    port: u32,
    /// The last state that was seen.
    seen: u8,
    notified: bool,
    answered: bool,
}

impl Access {
    /// Looks whether it has ended; the value for a load.
    pub fn poll(&mut self) -> Option<Result<u64, Fault>> {
        let FakeVcpu { machine, vcpu } = &self.vcpu;
        let mut state = machine.state();
        if let Some(fault) = state.stopped(*vcpu) {
            return Some(Err(fault));
        }
        let mut waiting = false;
        for leg in self.legs.iter_mut().filter(|leg| !leg.answered) {
            if machine.hub.take_notified(machine.domid, leg.port) {
                leg.notified = true;
            }
            if !leg.sample(*vcpu, &mut self.data) {
                state.crashed = true;
                return Some(Err(Fault::Crashed));
            }
            waiting |= !leg.answered;
        }
        let mask = u64::MAX >> (64 - 8 * u32::from(self.size));
        (!waiting).then_some(Ok(self.data & mask))
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// See [`Fault`].
    pub fn wait(mut self) -> Result<u64, Fault> {
        let start = Instant::now();
        loop {
            if let Some(result) = self.poll() {
                return result;
            }
            let machine = &self.vcpu.machine;
            if start.elapsed() > machine.vcpu_timeout {
                return Err(Fault::Hung);
            }
            if let Some(leg) = self.legs.iter_mut().find(|leg| !leg.answered) {
                leg.notified |= machine.hub.wait_notified(machine.domid, leg.port, NAP);
            }
        }
    }

    fn drive(mut self, mut step: impl FnMut()) -> Result<u64, Fault> {
        for _ in 0..STEPS {
            if let Some(result) = self.poll() {
                return result;
            }
            step();
        }
        self.poll().unwrap_or(Err(Fault::Hung))
    }
}

impl Leg {
    /// Looks at the slot (`wait_for_io`); false when its state is one Xen crashes the guest for.
    ///
    /// An answer is taken only after a notification: without, a vCPU sleeps.
    fn sample(&mut self, vcpu: u32, data: &mut u64) -> bool {
        let slot = self.slots.slot(vcpu);
        let state = slot.state();
        if state < self.seen {
            return false;
        }
        self.seen = state;
        match state {
            STATE_IOREQ_READY | STATE_IOREQ_INPROCESS => self.notified = false,
            STATE_IORESP_READY => {
                if std::mem::take(&mut self.notified) {
                    *data = slot.data.load(Ordering::Relaxed);
                    slot.state.store(STATE_IOREQ_NONE, Ordering::Release);
                    self.answered = true;
                }
            }
            // Before anything was seen: `seen` is READY at least, afterwards.
            _ => return false,
        }
        true
    }
}
