//! What Xen knows of the guest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xen_foreignmem::fake::FakePages;

use super::call::Call;
use super::errno::errno;
use super::fault::Fault;
use super::ioreq::FakeIoreq;
use super::irq::Interrupts;
use super::ranges::Ranges;
use crate::page::SLOTS;
use crate::server_id::ServerId;
use crate::sys::{
    FLAG_DATA_IS_PTR, FLAG_READ, Ioreq, MAX_SERVERS, STATE_IOREQ_NONE, STATE_IOREQ_READY,
};

#[derive(Debug)]
pub(super) struct State {
    pub(super) destroyed: bool,
    pub(super) crashed: bool,
    /// vCPUs whose server was destroyed before they had their answer.
    pub(super) hung: Vec<u32>,
    pub(super) servers: [Option<Server>; MAX_SERVERS],
    pub(super) interrupts: Interrupts,
    pub(super) faults: Vec<(Call, u32, i32)>,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) enabled: bool,
    pub(super) ranges: Ranges,
    pub(super) slots: Slots,
    /// The guest's end of each vCPU's event channel.
    pub(super) ports: Vec<u32>,
}

/// The page of requests, as Xen sees it.
#[derive(Clone, Debug)]
pub(super) struct Slots(pub(super) Arc<FakePages>);

impl Slots {
    pub(super) fn slot(&self, vcpu: u32) -> &Ioreq {
        let vcpu = vcpu as usize;
        assert!(vcpu < SLOTS, "vCPU {vcpu} has no slot");
        // SAFETY: there is a page, so the slot lies in it.
        let slot = unsafe { self.0.as_ptr().cast::<Ioreq>().add(vcpu) };
        // SAFETY: the page stays as long as `self`; all fields are atomics, with no invalid value.
        unsafe { &*slot }
    }
}

impl State {
    pub(super) fn new(nr_spis: u32) -> Self {
        Self {
            destroyed: false,
            crashed: false,
            hung: Vec::new(),
            servers: Default::default(),
            interrupts: Interrupts::new(nr_spis),
            faults: Vec::new(),
        }
    }

    /// The planned failure of a call, if there is one.
    pub(super) fn fault(&mut self, call: Call) -> io::Result<()> {
        let Some(at) = self.faults.iter().position(|&(planned, ..)| planned == call) else {
            return Ok(());
        };
        let (_, times, error) = &mut self.faults[at];
        let error = errno(*error);
        *times -= 1;
        if *times == 0 {
            self.faults.remove(at);
        }
        Err(error)
    }

    pub(super) fn server(&mut self, id: ServerId) -> io::Result<&mut Server> {
        let server = self.servers.get_mut(usize::from(id)).and_then(Option::as_mut);
        server.ok_or_else(|| errno(libc::ENOENT))
    }

    /// Why the vCPU does not run.
    pub(super) fn stopped(&self, vcpu: u32) -> Option<Fault> {
        if self.crashed {
            Some(Fault::Crashed)
        } else if self.destroyed {
            Some(Fault::Destroyed)
        } else if self.hung.contains(&vcpu) {
            Some(Fault::Hung)
        } else {
            None
        }
    }

    /// Who gets an access: of the enabled servers that have all its bytes, the highest (`ioreq_server_select`).
    pub(super) fn select(&mut self, addr: u64, size: u8) -> Option<&mut Server> {
        let end = addr.checked_add(u64::from(size) - 1)?;
        let mut servers = self.servers.iter_mut().rev().flatten();
        servers.find(|server| server.enabled && server.ranges.contains(addr, end))
    }
}

impl Server {
    /// Puts a request into a vCPU's slot (`ioreq_send`); false when the slot is not as Xen left it. The event
    /// is still to be sent.
    pub(super) fn send(&self, vcpu: u32, request: &FakeIoreq) -> bool {
        let slot = self.slots.slot(vcpu);
        if slot.state() != STATE_IOREQ_NONE
            || slot.vp_eport.load(Ordering::Relaxed) != self.ports[vcpu as usize]
        {
            return false;
        }
        slot.addr.store(request.addr, Ordering::Relaxed);
        slot.data.store(request.data, Ordering::Relaxed);
        slot.count.store(request.count, Ordering::Relaxed);
        slot.size.store(request.size, Ordering::Relaxed);
        slot.kind.store(request.kind, Ordering::Relaxed);
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(request.read, FLAG_READ) | flag(request.data_is_ptr, FLAG_DATA_IS_PTR);
        slot.state.store(flags | STATE_IOREQ_READY, Ordering::Release);
        true
    }
}
