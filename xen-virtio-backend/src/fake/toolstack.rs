//! A toolstack, xenstore and guests, and a backend over them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_dev::feature;
use xen_ioreq::{DomId, fake::FakeDomain};
use xen_store::{Store, fake::FakeStore};

use super::{
    device::DeviceConfig,
    driver::FakeDriver,
    guest_kernel::GuestKernel,
    store::{HookedStore, Hooks},
    window::Window,
    xen::FakeXen,
};
use crate::{
    backend::Backend,
    guest::MapBudget,
    handshake::{Handshake, HandshakeError},
    launch::InThread,
    node::Sharing,
    transport_kind::Transports,
};

/// How much of each guest's memory is mapped at most, if nothing else is said.
const MAP_BUDGET: MapBudget = MapBudget::Bytes(64 << 20);
/// How long the backend may take until it has nothing to do.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// A dom0 without Xen: what libxl does to devices and guests, and the backend that hears of it.
///
/// Nothing happens in the backend's handshake but in [`settle`](Self::settle) and its like. Accesses of guests are
/// answered at any time.
pub struct FakeToolstack<B: Backend> {
    /// The toolstack's connection to xenstore.
    pub store: FakeStore,
    backend: Option<Handshake<HookedStore, InThread<FakeXen>, B>>,
    make_backend: Box<dyn Fn() -> B>,
    map_budget: MapBudget,
    transports: Transports,
    hooks: Hooks,
    xen: FakeXen,
    processes: InThread<FakeXen>,
    kernels: Mutex<BTreeMap<DomId, Arc<GuestKernel>>>,
}

impl<B: Backend> FakeToolstack<B> {
    /// Starts a backend, which it makes by `make_backend`, now and whenever it is started again.
    ///
    /// # Panics
    /// No descriptors are left.
    pub fn new(make_backend: impl Fn() -> B + 'static) -> Self {
        Self::with_map_budget(MAP_BUDGET, make_backend)
    }

    /// The same for a backend that maps so much of each guest's memory at most.
    ///
    /// # Panics
    /// No descriptors are left.
    pub fn with_map_budget(map_budget: MapBudget, make_backend: impl Fn() -> B + 'static) -> Self {
        let store = FakeStore::new();
        store.mkdir(None, "/local/domain/0/backend").expect("an empty xenstore takes a node");
        let xen = FakeXen::default();
        let mut toolstack = Self {
            store,
            backend: None,
            make_backend: Box::new(make_backend),
            map_budget,
            transports: Transports::default(),
            hooks: Hooks::default(),
            processes: InThread::new(xen.clone()),
            xen,
            kernels: Mutex::default(),
        };
        toolstack.start_backend();
        toolstack
    }

    /// A backend over this host that the test runs by itself, with a connection to xenstore of its own.
    ///
    /// # Errors
    /// As of [`Handshake::new`].
    pub fn handshake<S: Store>(
        &self,
        store: S,
    ) -> Result<Handshake<S, InThread<FakeXen>, B>, HandshakeError> {
        let (processes, backend) = (self.processes.clone(), (self.make_backend)());
        let handshake = Handshake::new(store, processes, backend, self.map_budget)?;
        Ok(handshake.with_transports(self.transports.clone()))
    }

    /// The backend's supervisor starts again, and has guests that are created from then on reach their devices so.
    ///
    /// # Panics
    /// No descriptors are left.
    pub fn set_transports(&mut self, transports: impl Into<Transports>) {
        self.transports = transports.into();
        self.start_backend();
    }

    /// The processes of guests, which are threads here, for a supervisor of another kind or version over the same host.
    pub fn processes(&self) -> &InThread<FakeXen> {
        &self.processes
    }

    /// The backend's supervisor starts. What guests' processes an earlier one has left, it takes over when it
    /// [settles](Self::settle).
    ///
    /// # Panics
    /// No descriptors are left.
    pub fn start_backend(&mut self) {
        let store = HookedStore { inner: self.store.connect(0), hooks: self.hooks.clone() };
        self.backend = Some(self.handshake(store).expect("a backend over the fakes"));
    }

    /// The backend's supervisor ends. The guests' processes, which are threads here, serve on.
    pub fn stop_backend(&mut self) {
        self.backend = None;
    }

    /// The supervisor and all processes of guests end, as at the end of dom0.
    pub fn stop_all(&mut self) {
        self.stop_backend();
        self.processes.stop();
    }

    pub(super) fn backend(&mut self) -> &mut Handshake<HookedStore, InThread<FakeXen>, B> {
        self.backend.as_mut().expect("a running backend")
    }

    /// The operator says that what devices stand on may have changed (SIGHUP). They take note of it soon.
    ///
    /// # Panics
    /// The backend was stopped.
    pub fn refresh(&self) {
        self.backend.as_ref().expect("a running backend").refresh();
    }

    pub(super) fn has_figures(&self) -> bool {
        self.backend.as_ref().is_some_and(Handshake::has_figures)
    }

    /// Calls `look` with the path and the value of everything that the backend writes to xenstore, before it is written.
    pub fn on_write(&self, look: impl Fn(&str, &[u8]) + Send + Sync + 'static) {
        self.hooks.on_write(Box::new(look));
    }

    /// Does this once, before the backend's next transaction begins.
    pub fn on_transaction(&self, meanwhile: impl FnOnce() + Send + 'static) {
        self.hooks.on_transaction(Box::new(meanwhile));
    }

    /// The guests that there are, as the backend finds them.
    pub fn xen(&self) -> &FakeXen {
        &self.xen
    }

    fn kernels(&self) -> MutexGuard<'_, BTreeMap<DomId, Arc<GuestKernel>>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest is made: with two vCPUs, and RAM in two banks.
    pub fn create_guest(&self, domid: DomId) -> FakeDomain {
        self.add_guest(FakeDomain::builder().domid(domid).vcpus(2).build())
    }

    /// A guest is made that is like this.
    pub fn add_guest(&self, domain: FakeDomain) -> FakeDomain {
        let domid = domain.domid();
        self.xen.add(domain.clone());
        self.kernels().insert(domid, GuestKernel::new(&domain, Sharing::Foreign));
        self.store.introduce_domain(domid);
        domain
    }

    /// The toolstack says who a guest is, as libxl does when it makes one.
    ///
    /// # Panics
    /// xenstore refuses to.
    pub fn name_guest(&self, domid: DomId, name: &str, uuid: &str) {
        let home = format!("/local/domain/{domid}");
        for (node, value) in [("name", name.to_owned()), ("vm", format!("/vm/{uuid}"))] {
            let written = self.store.write(None, &format!("{home}/{node}"), value.as_bytes());
            written.expect("a node of the toolstack's own");
        }
    }

    /// A guest is destroyed: first Xen knows no more of it, then everybody is told. Its devices' nodes stay.
    ///
    /// # Panics
    /// There is no such guest.
    pub fn destroy_guest(&self, domid: DomId) {
        let domain = self.xen.remove(domid).expect("a guest of this number");
        domain.destroy();
        self.kernels().remove(&domid);
        let removed = self.store.rm(None, &format!("/local/domain/{domid}"));
        removed.expect("the guest's nodes");
        self.store.release_domain(domid);
    }

    /// A guest.
    ///
    /// # Panics
    /// There is no such guest.
    pub fn domain(&self, domid: DomId) -> FakeDomain {
        self.xen.domain(domid).expect("a guest of this number")
    }

    /// The guest's kernel, as its devices that memory is shared with in this way meet it.
    ///
    /// # Panics
    /// There is no such guest.
    pub fn kernel(&self, domid: DomId, sharing: Sharing) -> Arc<GuestKernel> {
        self.kernels().get(&domid).expect("a guest of this number").with_sharing(sharing)
    }

    /// A device's registers, from the guest's first vCPU.
    ///
    /// # Panics
    /// There is no such guest.
    pub fn window(&self, device: &DeviceConfig) -> Window {
        Window::new(&self.domain(device.domid()), 0, device.base(), device.irq())
    }

    /// The guest's driver of a device with one queue. It takes these features, and what every driver of such a device
    /// takes: `VERSION_1`, and `ACCESS_PLATFORM` if the guest grants.
    ///
    /// # Panics
    /// The device doesn't accept the features, or isn't served.
    pub fn driver(&self, device: &DeviceConfig, features: u64) -> FakeDriver {
        let [driver] = self.drivers(device, features);
        driver
    }

    /// The same of several queues, from the first one on.
    ///
    /// # Panics
    /// The device doesn't accept the features, has fewer queues, or isn't served.
    pub fn drivers<const N: usize>(&self, device: &DeviceConfig, features: u64) -> [FakeDriver; N] {
        let platform = match device.shares_by() {
            Sharing::Foreign => 0,
            Sharing::Grant => feature::ACCESS_PLATFORM,
        };
        let kernel = self.kernel(device.domid(), device.shares_by());
        let features = features | feature::VERSION_1 | platform;
        FakeDriver::start_queues(self.window(device), &kernel, features)
    }

    /// The toolstack adds a device: all nodes in one transaction. The backend serves it when it
    /// [settles](Self::settle).
    ///
    /// # Panics
    /// xenstore refuses to.
    pub fn add_device(&self, device: &DeviceConfig) {
        self.write_nodes(device, device.nodes());
    }

    /// The toolstack asks the backend to let go of a device, as at a guest's orderly end. When the backend has, its
    /// [`state`](Self::state) is `6`.
    ///
    /// # Panics
    /// xenstore refuses to.
    pub fn close_device(&self, device: &DeviceConfig) {
        self.write_nodes(device, [("online", b"0".as_slice()), ("state", b"5")]);
    }

    fn write_nodes<'a>(
        &self,
        device: &DeviceConfig,
        nodes: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) {
        let tx = self.store.transaction_start().expect("a transaction");
        for (node, value) in nodes {
            let path = format!("{}/{node}", device.path());
            self.store.write(Some(tx), &path, value).expect("a node of the toolstack's own");
        }
        self.store.transaction_end(tx, true).expect("no other client meanwhile");
    }

    /// The toolstack removes a device's nodes.
    ///
    /// # Panics
    /// There are none.
    pub fn remove_device(&self, device: &DeviceConfig) {
        self.store.rm(None, &device.path()).expect("the device's nodes");
    }

    /// Adds a device that must be served then: its window answers.
    ///
    /// # Panics
    /// It isn't served. The text says why.
    pub fn serve(&mut self, device: &DeviceConfig) {
        self.add_device(device);
        self.settle();
        assert_eq!(self.state(device).as_deref(), Some("2"), "{:?}", self.error(device));
    }

    /// Lets the backend do what there is to do, until nothing is left.
    ///
    /// # Panics
    /// It finds something to do for a minute, or was stopped.
    pub fn settle(&mut self) {
        let backend = self.backend();
        let begin = Instant::now();
        while begin.elapsed() < LONGEST {
            backend.handle_events().expect("xenstore is there");
            let mut fds = [backend.store().as_fd(), backend.events()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            // Who waits for a thread hears of it.
            let tv_nsec = if backend.is_at_rest() { 0 } else { 10_000_000 };
            let timeout = Timespec { tv_sec: 0, tv_nsec };
            let ready = poll(&mut fds, Some(&timeout)).expect("descriptors that are open");
            if ready == 0 && backend.is_at_rest() {
                return;
            }
        }
        panic!("the backend finds something to do for ever");
    }

    /// Lets the backend do what there is to do now, whether threads of its have answered or not.
    ///
    /// # Errors
    /// xenstore was lost.
    ///
    /// # Panics
    /// The backend was stopped.
    pub fn handle_events(&mut self) -> Result<(), xen_store::Error> {
        self.backend().handle_events()
    }

    /// Lets the backend do what there is to do, now and later, until `done`.
    ///
    /// # Panics
    /// It isn't done within `limit`, or the backend was stopped.
    pub fn settle_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < limit, "it isn't done after {limit:?}");
            self.handle_events().expect("xenstore is there");
            let pause = self.backend().wait().unwrap_or(Duration::from_millis(10));
            thread::sleep(pause.min(Duration::from_millis(10)));
        }
    }

    /// How far a device is: the node `state`, of which 2 (`InitWait`) is served, and 6 (`Closed`) is let go of. `None`
    /// if it was refused, or has no nodes.
    ///
    /// # Panics
    /// It isn't text.
    pub fn state(&self, device: &DeviceConfig) -> Option<String> {
        self.read(&format!("{}/state", device.path()))
    }

    /// What the backend says is wrong with a device, in the device's own directory.
    ///
    /// # Panics
    /// It isn't text.
    pub fn error(&self, device: &DeviceConfig) -> Option<String> {
        self.read(&format!("{}/error", device.path()))
    }

    /// The same where Linux's drivers put it, and where it stays when the device's directory is removed.
    ///
    /// # Panics
    /// It isn't text.
    pub fn lasting_error(&self, device: &DeviceConfig) -> Option<String> {
        self.read(&format!("{}/error", device.id().path("/local/domain/0/error/backend")))
    }

    fn read(&self, path: &str) -> Option<String> {
        match self.store.read(None, path) {
            Ok(value) => Some(String::from_utf8(value).expect("text")),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{path} can't be read: {error}"),
        }
    }
}

impl<B: Backend> Drop for FakeToolstack<B> {
    fn drop(&mut self) {
        self.stop_all();
    }
}
