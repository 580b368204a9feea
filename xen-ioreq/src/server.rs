//! An IOREQ server: the requests of one guest, answered.

use std::io;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use xen_evtchn::{EventChannel, Port};
use xen_foreignmem::{DomId, ForeignMemory, RESOURCE_IOREQ_SERVER};

use crate::device_model::DeviceModel;
use crate::error::{Error, Operation};
use crate::eventfd::{EventFds, IoEventFd};
use crate::liveness::Liveness;
use crate::page::{IoreqPage, SLOTS};
use crate::request::{Request, RequestKind};
use crate::server_id::ServerId;
use crate::sys::{FRAME_IOREQ, STATE_IOREQ_NONE};

/// How long a server that ends waits for its vCPUs to take their last answers. One that has not by then, as of a
/// guest that is paused, hangs when it runs again. On a loaded host it may be a while until a vCPU runs.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often it looks in that time whether the guest is gone.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(10);

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests handed out.
    pub requests: u64,
    /// Events without a request: the kernel's ioeventfd had answered it, it had been found before its
    /// event, or the channel was fresh.
    pub spurious: u64,
}

/// A vCPU whose slot is to be looked at.
#[derive(Clone, Copy)]
struct Look {
    vcpu: u16,
    /// Its port was read from the descriptor, and is masked until it has been looked at.
    event: bool,
}

/// An IOREQ server and the requests it is sent.
///
/// It is destroyed when it is dropped: vCPUs that wait are answered first, as Xen lets them wait for good
/// otherwise. A guest that is gone already is no trouble.
///
/// Memory-mapped ranges the guest touches must be forwarded ([`map_range`](Self::map_range)) before it runs.
pub struct IoreqServer<M: DeviceModel, F: ForeignMemory, E: EventChannel> {
    // In the order they go: the ports, the page, the server.
    ports: Arc<[Port<E>]>,
    page: Arc<IoreqPage>,
    registration: Registration<M>,
    evtchn: Arc<E>,
    nr_vcpus: u16,
    /// The vCPU of each local port, by port.
    by_port: Vec<(u32, u16)>,
    looks: Vec<Look>,
    /// Ports of slots that were looked at, to be unmasked together; and their vCPUs.
    masked: Vec<u32>,
    again: Vec<u16>,
    failure: Option<(u32, io::Error)>,
    stats: Stats,
    memory: PhantomData<fn(F)>,
}

/// The server in Xen; dropping it destroys it.
struct Registration<M: DeviceModel> {
    model: Arc<M>,
    id: ServerId,
}

impl<M: DeviceModel> Registration<M> {
    fn error(&self, operation: Operation, source: io::Error) -> Error {
        Error::DeviceModel { domid: self.model.domid(), operation, source }
    }
}

impl<M: DeviceModel> Drop for Registration<M> {
    fn drop(&mut self) {
        // Failing, the guest is gone, and its servers with it.
        let _ = self.model.destroy_ioreq_server(self.id);
    }
}

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> IoreqServer<M, F, E> {
    /// Creates a server for the guest of `model` and maps its page. It is not enabled yet.
    ///
    /// `evtchn` is for this server alone: the ports it reports are taken for vCPUs.
    ///
    /// # Errors
    ///
    /// Xen refuses (see [`DeviceModel`]), the page can't be mapped, or the guest has more than 128 vCPUs. No
    /// server is left behind.
    pub fn create(model: Arc<M>, memory: Arc<F>, evtchn: Arc<E>) -> Result<Self, Error> {
        let domid = model.domid();
        if memory.domid() != domid {
            return Err(Error::DifferentDomains { model: domid, memory: memory.domid() });
        }
        let refused = |operation| move |source| Error::DeviceModel { domid, operation, source };
        let vcpus = model.nr_vcpus().map_err(refused(Operation::CountVcpus))?;
        let nr_vcpus = u16::try_from(vcpus)
            .ok()
            .filter(|&n| usize::from(n) <= SLOTS)
            .ok_or(Error::TooManyVcpus { domid, vcpus })?;
        let id = model.create_ioreq_server().map_err(refused(Operation::Create))?;
        let registration = Registration { model, id };
        let page = memory
            .map_resource(RESOURCE_IOREQ_SERVER, id.into(), FRAME_IOREQ, 1)
            .map_err(|source| Error::Page { id, source })?;
        let capacity = usize::from(nr_vcpus);
        Ok(Self {
            ports: Arc::new([]),
            page: Arc::new(IoreqPage::new(page)),
            registration,
            evtchn,
            nr_vcpus,
            by_port: Vec::new(),
            looks: Vec::with_capacity(2 * capacity),
            masked: Vec::with_capacity(capacity),
            again: Vec::with_capacity(capacity),
            failure: None,
            stats: Stats::default(),
            memory: PhantomData,
        })
    }

    /// Lets requests come, and binds the event channel of every vCPU. Once enabled, it stays so, and
    /// calling it again does nothing. Ranges may be forwarded before and after.
    ///
    /// # Errors
    ///
    /// Xen refuses, or an event channel can't be bound (somebody else uses the server). Then it
    /// is not enabled.
    pub fn enable(&mut self) -> Result<(), Error> {
        if !self.ports.is_empty() {
            return Ok(());
        }
        let Registration { model, id } = &self.registration;
        model
            .set_ioreq_server_state(*id, true)
            .map_err(|source| self.registration.error(Operation::Enable, source))?;
        let ports = (0..self.nr_vcpus).map(|vcpu| self.bind(vcpu)).collect::<Result<Vec<_>, _>>();
        let ports = ports.inspect_err(|_| {
            // Nobody would answer. Failing, the guest is gone.
            let _ = model.set_ioreq_server_state(*id, false);
        })?;
        self.by_port = ports.iter().map(Port::number).zip(0..).collect();
        self.by_port.sort_unstable();
        self.ports = ports.into();
        Ok(())
    }

    fn bind(&self, vcpu: u16) -> Result<Port<E>, Error> {
        let domid = self.domid();
        let port = self.page.slot(vcpu.into()).vp_eport.load(Ordering::Acquire);
        Port::bind_interdomain(&self.evtchn, domid, port).map_err(|source| Error::Bind {
            domid,
            vcpu: vcpu.into(),
            port,
            source,
        })
    }

    /// Forwards the guest's accesses to these guest-physical bytes, first and last included.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceModel::map_mmio_range`].
    pub fn map_range(&mut self, range: RangeInclusive<u64>) -> Result<(), Error> {
        let Registration { model, id } = &self.registration;
        let operation = Operation::MapRange(*range.start(), *range.end());
        model
            .map_mmio_range(*id, range)
            .map_err(|source| self.registration.error(operation, source))
    }

    /// Takes [`map_range`](Self::map_range) back. Later accesses abort the guest's instruction; requests that
    /// were sent before still come.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceModel::unmap_mmio_range`].
    pub fn unmap_range(&mut self, range: RangeInclusive<u64>) -> Result<(), Error> {
        let Registration { model, id } = &self.registration;
        let operation = Operation::UnmapRange(*range.start(), *range.end());
        model
            .unmap_mmio_range(*id, range)
            .map_err(|source| self.registration.error(operation, source))
    }

    /// The descriptor to poll when [`next_request`](Self::next_request) gave `None`: readable (POLLIN)
    /// when there is something.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.evtchn.as_fd()
    }

    /// The next request, without blocking. `None`: there is none now, poll [`as_fd`](Self::as_fd).
    ///
    /// Ports are read in batches. Each is unmasked only when its slot has been served, and the slot looked at
    /// once more after that, so that no kick is lost and a vCPU that is quick costs no further system call.
    ///
    /// # Errors
    ///
    /// The event-channel descriptor fails, or the answer to an earlier request could not be told to its vCPU
    /// (the guest is being destroyed). The server may be asked again.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, Error> {
        let domid = self.domid();
        if let Some((vcpu, source)) = self.failure.take() {
            return Err(Error::Notify { domid, vcpu, source });
        }
        let (vcpu, raw) = loop {
            if let Some(look) = self.looks.pop() {
                if look.event {
                    self.masked.push(self.ports[usize::from(look.vcpu)].number());
                    self.again.push(look.vcpu);
                }
                match self.page.slot(look.vcpu.into()).claim() {
                    Some(raw) => break (look.vcpu, raw),
                    None => self.stats.spurious += u64::from(look.event),
                }
            } else if !self.masked.is_empty() {
                self.unmask()?;
            } else if !self.read_events()? {
                return Ok(None);
            }
        };
        self.stats.requests += 1;
        let index = usize::from(vcpu);
        Ok(Some(Request {
            slot: self.page.slot(index),
            doorbell: &self.ports[index],
            failure: &mut self.failure,
            vcpu: vcpu.into(),
            raw,
            kind: RequestKind::new(&raw),
            data: u64::MAX,
        }))
    }

    /// Unmasks what has been looked at, and looks once more.
    fn unmask(&mut self) -> Result<(), Error> {
        let unmasked = self.evtchn.unmask(&self.masked);
        unmasked.map_err(|source| self.channel_error("unmask", source))?;
        self.masked.clear();
        self.looks.extend(self.again.drain(..).map(|vcpu| Look { vcpu, event: false }));
        Ok(())
    }

    /// Reads a batch of events; false when there are none.
    fn read_events(&mut self) -> Result<bool, Error> {
        let mut ports = [0; SLOTS];
        match self.evtchn.pending(&mut ports) {
            Ok(count) => {
                for port in &ports[..count] {
                    match self.by_port.binary_search_by_key(port, |&(port, _)| port) {
                        Ok(at) => self.looks.push(Look { vcpu: self.by_port[at].1, event: true }),
                        // A port that has been unbound since, or somebody else's, which stays masked.
                        Err(_) => self.stats.spurious += 1,
                    }
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {
                let reset = self.evtchn.reset();
                reset.map_err(|source| self.channel_error("reset", source))?;
                // Which events were lost is not known: every vCPU may wait, every port be masked.
                let all = (0..self.ports.len()).map(|vcpu| Look { vcpu: vcpu as u16, event: true });
                self.looks.extend(all);
                Ok(true)
            }
            Err(source) => Err(self.channel_error("read", source)),
        }
    }

    fn channel_error(&self, action: &'static str, source: io::Error) -> Error {
        Error::EventChannel { domid: self.domid(), action, source }
    }

    /// The server's number, unique in the guest.
    pub fn id(&self) -> ServerId {
        self.registration.id
    }

    /// How many vCPUs the guest has, at most 128.
    pub fn nr_vcpus(&self) -> u32 {
        self.nr_vcpus.into()
    }

    /// The guest.
    pub fn domid(&self) -> DomId {
        self.registration.model.domid()
    }

    /// What tells whether the guest still lives, for whichever thread asks.
    pub fn liveness(&self) -> Liveness<M> {
        Liveness::new(Arc::clone(&self.registration.model), self.registration.id)
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Answers every request that waits, and gives the vCPUs time to take the answers.
    fn answer_all(&mut self) {
        for (vcpu, port) in self.ports.iter().enumerate() {
            let slot = self.page.slot(vcpu);
            if let Some(raw) = slot.claim() {
                drop(Request {
                    slot,
                    doorbell: port,
                    failure: &mut self.failure,
                    vcpu: vcpu as u32,
                    raw,
                    kind: RequestKind::new(&raw),
                    data: u64::MAX,
                });
            }
        }
        let idle =
            || (0..self.ports.len()).all(|vcpu| self.page.slot(vcpu).state() == STATE_IOREQ_NONE);
        let (start, mut looked) = (Instant::now(), Duration::ZERO);
        while !idle() && start.elapsed() < SHUTDOWN_GRACE {
            thread::sleep(Duration::from_micros(200));
            if start.elapsed().saturating_sub(looked) >= LIVENESS_INTERVAL {
                looked = start.elapsed();
                if matches!(self.liveness().is_alive(), Ok(false)) {
                    return;
                }
            }
        }
    }
}

impl<M: EventFds, F: ForeignMemory, E: EventChannel> IoreqServer<M, F, E> {
    /// Lets the kernel answer the guest's kicks of `queue`, which write `size` bytes at `base + 0x50` in the
    /// virtio-mmio window at `base`, and count them in an eventfd.
    ///
    /// Read the hazard of [`IoEventFd`] first.
    ///
    /// # Errors
    ///
    /// EINVAL: the server is not enabled. Otherwise those of [`EventFds::ioeventfd`].
    pub fn ioeventfd(&self, base: u64, size: u32, queue: u32) -> io::Result<IoEventFd<M, E>> {
        if self.ports.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        IoEventFd::new(
            Arc::clone(&self.registration.model),
            Arc::clone(&self.page),
            Arc::clone(&self.ports),
            (base, size, queue),
        )
    }
}

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> Drop for IoreqServer<M, F, E> {
    fn drop(&mut self) {
        let Registration { model, id } = &self.registration;
        // Refused only when the guest is gone: then nobody waits.
        if model.set_ioreq_server_state(*id, false).is_ok() {
            self.answer_all();
        }
    }
}

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> std::fmt::Debug for IoreqServer<M, F, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoreqServer")
            .field("domid", &self.domid())
            .field("id", &self.id())
            .field("nr_vcpus", &self.nr_vcpus)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
