//! An IOREQ server: the requests of one guest, answered.

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xen_evtchn::{EventChannel, Loopback, Port};
use xen_foreignmem::{DomId, ForeignMemory, RESOURCE_IOREQ_SERVER};

use crate::deferred::Deferred;
use crate::device_model::DeviceModel;
use crate::error::{Error, Operation};
use crate::liveness::Liveness;
use crate::page::{IoreqPage, SLOTS};
use crate::registration::Registration;
use crate::request::Request;
use crate::request_kind::RequestKind;
use crate::server_id::ServerId;
use crate::stats::Stats;
use crate::sys::{FRAME_IOREQ, STATE_IORESP_READY};

mod ending;
mod events;

/// A vCPU whose slot has to be checked.
#[derive(Clone, Copy)]
struct PendingSlot {
    vcpu: u16,
    /// Its port was read from the event-channel descriptor, and stays masked until the slot was checked.
    event: bool,
}

/// An IOREQ server and its requests.
///
/// Dropping it destroys the server. Waiting vCPUs are answered first, as they would hang otherwise; as long as one, of a
/// guest that is paused, has not taken its answer, the server stays in Xen, disabled. This is also safe if the guest is
/// gone already.
///
/// The MMIO ranges that the guest accesses have to be forwarded ([`map_range`](Self::map_range)) before it runs.
pub struct IoreqServer<M: DeviceModel, F: ForeignMemory, E: EventChannel> {
    // In the order in which they have to be dropped: the ports, the page, the server.
    ports: Arc<[Port<E>]>,
    page: Arc<IoreqPage>,
    deferred: Arc<Deferred>,
    registration: Registration<M>,
    evtchn: Arc<E>,
    nr_vcpus: u16,
    /// The vCPU of each local port, sorted by port.
    by_port: Vec<(u32, u16)>,
    pending: Vec<PendingSlot>,
    /// Ports of slots that were checked, to be unmasked in one call.
    masked: Vec<u32>,
    /// The vCPUs of these ports, whose slots are checked again after that.
    recheck: Vec<u16>,
    /// Ends the sleep of [`wait`](Self::wait).
    bell: Option<Arc<Loopback<E>>>,
    /// The last batch of events had all that there were.
    is_drained: bool,
    failure: Option<(u32, io::Error)>,
    wait_failure: Option<Error>,
    stats: Stats,
    memory: PhantomData<fn(F)>,
}

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> IoreqServer<M, F, E> {
    /// Creates a server for the guest of `model` and maps its page. It is not enabled yet.
    ///
    /// `evtchn` must be used by this server only: every port that it reports is taken for a vCPU's.
    ///
    /// # Errors
    ///
    /// Xen refuses (see [`DeviceModel`]), the page can't be mapped, or the guest has more than 128 vCPUs. No
    /// server is left behind.
    pub fn create(model: Arc<M>, memory: Arc<F>, evtchn: Arc<E>) -> Result<Self, Error> {
        let nr_vcpus = nr_vcpus(&*model, &*memory)?;
        Self::new(Registration::create(model)?, &memory, evtchn, nr_vcpus)
    }

    /// Takes over the server `id`, whose process has ended without destroying it, as by a signal. Requests that it
    /// had not answered come again.
    ///
    /// Dropping the server answers those, too, so that no vCPU hangs that waits for that process.
    ///
    /// # Errors
    ///
    /// There is no such server, or another process uses it; it is left alone then. Otherwise those of
    /// [`create`](Self::create).
    pub fn take_over(
        model: Arc<M>,
        memory: Arc<F>,
        evtchn: Arc<E>,
        id: ServerId,
    ) -> Result<Self, Error> {
        let (domid, nr_vcpus) = (model.domid(), nr_vcpus(&*model, &*memory)?);
        let mut server = Self::new(Registration::of(model, id), &memory, evtchn, nr_vcpus)?;
        // Its process may have ended before it was enabled. Otherwise this does nothing.
        server.registration.set_state(true)?;
        server.bind_all()?;
        server.registration.set_own(true);
        for (vcpu, port) in server.ports.iter().enumerate() {
            // Its process may have ended after it had answered and before it notified.
            if server.page.slot(vcpu).state() == STATE_IORESP_READY {
                let vcpu = vcpu as u32;
                port.notify().map_err(|source| Error::Notify { domid, vcpu, source })?;
            }
        }
        Ok(server)
    }

    fn new(
        registration: Registration<M>,
        memory: &F,
        evtchn: Arc<E>,
        nr_vcpus: u16,
    ) -> Result<Self, Error> {
        let id = registration.id;
        let page = memory
            .map_resource(RESOURCE_IOREQ_SERVER, id.into(), FRAME_IOREQ, 1)
            .map_err(|source| Error::Page { id, source })?;
        let capacity = usize::from(nr_vcpus);
        Ok(Self {
            ports: Arc::new([]),
            page: Arc::new(IoreqPage::new(page)),
            deferred: Arc::new(Deferred::new()),
            registration,
            evtchn,
            nr_vcpus,
            by_port: Vec::new(),
            pending: Vec::with_capacity(2 * capacity),
            masked: Vec::with_capacity(capacity),
            recheck: Vec::with_capacity(capacity),
            bell: None,
            is_drained: false,
            failure: None,
            wait_failure: None,
            stats: Stats::default(),
            memory: PhantomData,
        })
    }

    /// Enables the server, and binds the event channel of every vCPU. Further calls do nothing. Ranges may be
    /// forwarded before and after.
    ///
    /// # Errors
    ///
    /// Xen refuses, or an event channel can't be bound, as another process uses the server. The server is
    /// not enabled then.
    pub fn enable(&mut self) -> Result<(), Error> {
        if !self.ports.is_empty() {
            return Ok(());
        }
        self.registration.set_state(true)?;
        self.bind_all().inspect_err(|_| {
            // Nobody would answer requests. If this fails, the guest is gone.
            let _ = self.registration.set_state(false);
        })
    }

    fn bind_all(&mut self) -> Result<(), Error> {
        let ports =
            (0..self.nr_vcpus).map(|vcpu| self.bind(vcpu)).collect::<Result<Vec<_>, _>>()?;
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
        self.registration.map(range)
    }

    /// Undoes [`map_range`](Self::map_range). Later accesses abort the guest's instruction; requests that were
    /// sent before still arrive.
    ///
    /// # Errors
    ///
    /// Those of [`DeviceModel::unmap_mmio_range`].
    pub fn unmap_range(&mut self, range: RangeInclusive<u64>) -> Result<(), Error> {
        self.registration.unmap(range)
    }

    /// The descriptor to poll after [`next_request`](Self::next_request) returned `None`: readable (POLLIN)
    /// when there are events.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.evtchn.as_fd()
    }

    /// The next request, without blocking. `None` if none was found: poll [`as_fd`](Self::as_fd), level-triggered. An
    /// event that has come meanwhile makes it readable.
    ///
    /// Ports are read in batches. Each is unmasked only after its slot was served, and the slot is checked
    /// again after that. So no event is lost, and a request that arrives meanwhile costs no system call. After a
    /// batch that took all events there were, none is read again before the next call: that would mostly fail.
    ///
    /// # Errors
    ///
    /// The event-channel descriptor fails, or the vCPU of an earlier request couldn't be notified of its answer,
    /// as the guest is being destroyed. The method may be called again.
    pub fn next_request(&mut self) -> Result<Option<Request<'_>>, Error> {
        let domid = self.domid();
        if let Some((vcpu, source)) = self.failure.take() {
            return Err(Error::Notify { domid, vcpu, source });
        }
        if let Some(error) = self.wait_failure.take() {
            return Err(error);
        }
        let (vcpu, raw) = loop {
            if let Some(slot) = self.pending.pop() {
                if slot.event {
                    self.masked.push(self.ports[usize::from(slot.vcpu)].number());
                    self.recheck.push(slot.vcpu);
                }
                if self.deferred.is_kept(slot.vcpu.into()) {
                    continue;
                }
                match self.page.slot(slot.vcpu.into()).claim() {
                    Some(raw) => break (slot.vcpu, raw),
                    None => self.stats.spurious += u64::from(slot.event),
                }
            } else if !self.masked.is_empty() {
                self.unmask()?;
            } else if mem::take(&mut self.is_drained) || !self.read_events(E::pending)? {
                return Ok(None);
            }
        };
        self.stats.requests += 1;
        Ok(Some(Request {
            page: &self.page,
            ports: &self.ports,
            deferred: &self.deferred,
            failure: &mut self.failure,
            vcpu: vcpu.into(),
            raw,
            kind: RequestKind::new(&raw),
            data: u64::MAX,
        }))
    }

    /// Whether dropping this leaves the server in Xen as it is, as the end of a process by a signal does: the guest's
    /// vCPUs wait there for whoever [takes it over](Self::take_over). Not at first.
    pub fn leave_on_drop(&mut self, leave: bool) {
        self.registration.set_own(!leave);
    }

    /// The server's number, unique in the guest.
    pub fn id(&self) -> ServerId {
        self.registration.id
    }

    /// The number of vCPUs of the guest, at most 128.
    pub fn nr_vcpus(&self) -> u32 {
        self.nr_vcpus.into()
    }

    /// The guest.
    pub fn domid(&self) -> DomId {
        self.registration.model.domid()
    }

    /// A handle to check whether the guest still exists, for any thread.
    pub fn liveness(&self) -> Liveness<M> {
        Liveness::new(Arc::clone(&self.registration.model), self.registration.id)
    }

    /// A copy of the counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}

/// Counts the guest's vCPUs, for each of which the page has a slot.
fn nr_vcpus(model: &impl DeviceModel, memory: &impl ForeignMemory) -> Result<u16, Error> {
    let domid = model.domid();
    if memory.domid() != domid {
        return Err(Error::DifferentDomains { model: domid, memory: memory.domid() });
    }
    let counted = model.nr_vcpus();
    let operation = Operation::CountVcpus;
    let vcpus = counted.map_err(|source| Error::DeviceModel { domid, operation, source })?;
    let count = u16::try_from(vcpus).ok().filter(|&n| usize::from(n) <= SLOTS);
    count.ok_or(Error::TooManyVcpus { domid, vcpus })
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
