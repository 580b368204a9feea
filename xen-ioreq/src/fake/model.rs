//! `/dev/xen/privcmd`, as far as device-model operations go.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xen_foreignmem::fake::FakePages;
use xen_foreignmem::{DomId, RESOURCE_IOREQ_SERVER};

use super::call::Call;
use super::errno::errno;
use super::machine::Machine;
use super::ranges::Ranges;
use super::state::{Server, Slots, State};
use crate::device_model::{DeviceModel, ServerInfo};
use crate::eventfd::EventFds;
use crate::server_id::ServerId;
use crate::sys::{FRAME_IOREQ, STATE_IOREQ_NONE};

/// Device-model operations on a [`FakeDomain`](super::FakeDomain), with the errno Xen and Linux give.
#[derive(Debug)]
pub struct FakeDeviceModel {
    pub(super) machine: Arc<Machine>,
    pub(super) domid: DomId,
}

impl FakeDeviceModel {
    /// Runs an operation, unless the kernel or Xen refuse it whatever it is.
    fn dm_op<T>(&self, call: Call, op: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.machine.state();
        state.fault(call)?;
        if self.domid != self.machine.domid {
            let restricted = self.machine.foreign.is_restricted();
            return Err(errno(if restricted { libc::EPERM } else { libc::ESRCH }));
        }
        if self.machine.ram.is_gone() {
            return Err(errno(libc::ESRCH));
        }
        let result = op(&mut state);
        drop(state);
        self.machine.changed.notify_all();
        result
    }
}

impl DeviceModel for FakeDeviceModel {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn nr_vcpus(&self) -> io::Result<u32> {
        self.dm_op(Call::NrVcpus, |_| Ok(self.machine.vcpus))
    }

    fn create_ioreq_server(&self) -> io::Result<ServerId> {
        self.dm_op(Call::Create, |state| {
            if state.destroyed {
                // A dying domain gets no event channels for the vCPUs.
                return Err(errno(libc::EINVAL));
            }
            let free = state.servers.iter().position(Option::is_none);
            let id = free.ok_or_else(|| errno(libc::ENOSPC))?;
            let pages = Arc::new(FakePages::new(1)?);
            let machine = &self.machine;
            let resource = (RESOURCE_IOREQ_SERVER, id as u32, FRAME_IOREQ);
            machine.foreign.add_resource(resource.0, resource.1, resource.2, Arc::clone(&pages));
            state.servers[id] = Some(Server {
                enabled: false,
                ranges: Ranges::default(),
                slots: Slots(pages),
                ports: (0..machine.vcpus)
                    .map(|_| machine.hub.alloc_unbound(machine.domid))
                    .collect(),
            });
            Ok(id as ServerId)
        })
    }

    fn ioreq_server_info(&self, id: ServerId) -> io::Result<ServerInfo> {
        self.dm_op(Call::Info, |state| state.server(id).map(|_| ServerInfo::default()))
    }

    fn map_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()> {
        self.dm_op(Call::MapRange, |state| {
            state.server(id)?.ranges.add(*range.start(), *range.end()).map_err(errno)
        })
    }

    fn unmap_mmio_range(&self, id: ServerId, range: RangeInclusive<u64>) -> io::Result<()> {
        self.dm_op(Call::UnmapRange, |state| {
            state.server(id)?.ranges.remove(*range.start(), *range.end()).map_err(errno)
        })
    }

    fn set_ioreq_server_state(&self, id: ServerId, enabled: bool) -> io::Result<()> {
        self.dm_op(Call::SetState, |state| {
            let server = state.server(id)?;
            server.enabled = enabled;
            if enabled {
                for (vcpu, &port) in (0..).zip(&server.ports) {
                    server.slots.slot(vcpu).vp_eport.store(port, Ordering::Release);
                }
            }
            Ok(())
        })
    }

    fn destroy_ioreq_server(&self, id: ServerId) -> io::Result<()> {
        self.dm_op(Call::Destroy, |state| {
            state.server(id)?;
            let Some(server) = state.servers[usize::from(id)].take() else { return Ok(()) };
            let machine = &self.machine;
            machine.foreign.remove_resource(RESOURCE_IOREQ_SERVER, id.into(), FRAME_IOREQ);
            for (vcpu, &port) in (0..).zip(&server.ports) {
                if server.slots.slot(vcpu).state() != STATE_IOREQ_NONE {
                    state.hung.push(vcpu);
                }
                machine.hub.close(machine.domid, port)?;
            }
            Ok(())
        })
    }

    fn set_irq_level(&self, irq: u32, level: bool) -> io::Result<()> {
        self.dm_op(Call::SetIrqLevel, |state| match state.destroyed {
            true => Ok(()),
            false => state.interrupts.set_level(irq, level),
        })
    }
}

impl EventFds for FakeDeviceModel {
    fn irqfd(&self, irq: u32, eventfd: BorrowedFd<'_>, assign: bool) -> io::Result<()> {
        self.dm_op(Call::IrqFd, |state| match assign {
            true => state.interrupts.bind(irq, eventfd),
            false => {
                state.interrupts.unbind(eventfd);
                Ok(())
            }
        })
    }
}
