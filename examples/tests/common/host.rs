//! A host without Xen: xenstore, domains, images, and the backend over them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{fd::BorrowedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use xen_evtchn::fake::FakeEvtchn;
use xen_foreignmem::fake::{FakeForeignMemory, FakeGrantTable};
use xen_ioreq::{
    DomId,
    fake::{FakeDeviceModel, FakeDomain},
};
use xen_store::{Error, Perm, Store, TxId, WatchEvent, fake::FakeStore};
use xen_virtio_backend::{self as backend, Backend, Handles, Handshake, guest::MapBudget};
use xen_virtio_blk::{
    disks::Disks,
    figures::Figures,
    settings::{DiskSettings, Settings},
};

use super::{
    guest_kernel::{GuestKernel, Sharing},
    window::Window,
};

type Domains = Arc<Mutex<BTreeMap<DomId, FakeDomain>>>;

/// The fake domains by number.
#[derive(Clone, Default)]
pub struct FakePlatform(Domains);

impl backend::Host for FakePlatform {
    type Model = FakeDeviceModel;
    type Memory = FakeForeignMemory;
    type Grants = FakeGrantTable;
    type Events = FakeEvtchn;

    fn open(&self, domid: DomId) -> io::Result<Handles<Self>> {
        let domains = self.0.lock().unwrap();
        // The kernel opens its devices for any number; only their use finds nobody there.
        let domain = domains.get(&domid).ok_or(io::ErrorKind::NotFound)?;
        Ok(Handles {
            model: domain.device_model(),
            memory: domain.foreign_memory(),
            grants: domain.grant_table(),
            events: domain.event_channel()?,
        })
    }
}

type OnWrite = Box<dyn Fn(&str, &[u8]) + Send + Sync>;
type OnTransaction = Box<dyn FnOnce() + Send>;

/// The backend's connection to xenstore, with a look at what it is about to write.
pub struct WatchedStore {
    inner: FakeStore,
    on_write: Arc<Mutex<Option<OnWrite>>>,
    on_transaction: Arc<Mutex<Option<OnTransaction>>>,
}

impl WatchedStore {
    /// `inner`, and `look` at everything that is about to be written to it.
    pub fn new(inner: FakeStore, look: impl Fn(&str, &[u8]) + Send + Sync + 'static) -> Self {
        let on_write = Arc::new(Mutex::new(Some(Box::new(look) as OnWrite)));
        Self { inner, on_write, on_transaction: Arc::default() }
    }
}

impl Store for WatchedStore {
    fn read(&self, tx: Option<TxId>, path: &str) -> Result<Vec<u8>, Error> {
        self.inner.read(tx, path)
    }
    fn write(&self, tx: Option<TxId>, path: &str, value: &[u8]) -> Result<(), Error> {
        if let Some(on_write) = &*self.on_write.lock().unwrap() {
            on_write(path, value);
        }
        self.inner.write(tx, path, value)
    }
    fn mkdir(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.inner.mkdir(tx, path)
    }
    fn rm(&self, tx: Option<TxId>, path: &str) -> Result<(), Error> {
        self.inner.rm(tx, path)
    }
    fn directory(&self, tx: Option<TxId>, path: &str) -> Result<Vec<String>, Error> {
        self.inner.directory(tx, path)
    }
    fn get_perms(&self, tx: Option<TxId>, path: &str) -> Result<Vec<Perm>, Error> {
        self.inner.get_perms(tx, path)
    }
    fn set_perms(&self, tx: Option<TxId>, path: &str, perms: &[Perm]) -> Result<(), Error> {
        self.inner.set_perms(tx, path, perms)
    }
    fn watch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.inner.watch(path, token)
    }
    fn unwatch(&self, path: &str, token: &str) -> Result<(), Error> {
        self.inner.unwatch(path, token)
    }
    fn transaction_start(&self) -> Result<TxId, Error> {
        if let Some(meanwhile) = self.on_transaction.lock().unwrap().take() {
            meanwhile();
        }
        self.inner.transaction_start()
    }
    fn transaction_end(&self, tx: TxId, commit: bool) -> Result<(), Error> {
        self.inner.transaction_end(tx, commit)
    }
    fn domain_path(&self, domid: DomId) -> Result<String, Error> {
        self.inner.domain_path(domid)
    }
    fn next_event(&self) -> Result<Option<WatchEvent>, Error> {
        self.inner.next_event()
    }
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// A disk as the toolstack configures it.
#[derive(Clone, Debug)]
pub struct Disk {
    pub domid: DomId,
    pub devid: u32,
    pub kind: &'static str,
    /// The directory's nodes, as libxl writes them.
    pub nodes: BTreeMap<&'static str, Vec<u8>>,
    pub base: u64,
    pub irq: u32,
    pub grants: bool,
}

impl Disk {
    /// The guest's `nth` disk, where libxl puts it (`GUEST_VIRTIO_MMIO_BASE` and
    /// `GUEST_VIRTIO_MMIO_SPI_FIRST`, xen/include/public/arch-arm.h).
    pub fn new(domid: DomId, nth: u32, image: &Path) -> Self {
        let (base, irq) = (0x0200_0000 + u64::from(nth) * 0x200, 33 + nth);
        let nodes = [
            ("frontend", format!("/local/domain/{domid}/device/virtio_disk/{}", 51712 + 16 * nth)),
            ("frontend-id", domid.to_string()),
            ("params", image.to_str().expect("a readable path").to_owned()),
            ("online", "1".into()),
            ("removable", "0".into()),
            ("bootable", "1".into()),
            ("state", "1".into()),
            ("dev", format!("xvd{}", char::from(b'a' + nth as u8))),
            ("type", "standalone".into()),
            ("mode", "w".into()),
            ("device-type", "disk".into()),
            ("discard-enable", "1".into()),
            ("specification", "virtio".into()),
            ("transport", "mmio".into()),
            ("base", base.to_string()),
            ("irq", irq.to_string()),
            ("grant_usage", "0".into()),
        ];
        let nodes = nodes.into_iter().map(|(node, text)| (node, text.into_bytes())).collect();
        Self {
            domid,
            devid: 51712 + 16 * nth,
            kind: "virtio_disk",
            nodes,
            base,
            irq,
            grants: false,
        }
    }

    pub fn read_only(self) -> Self {
        self.with("mode", "r")
    }

    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.grants = sharing == Sharing::Grant;
        self.with("grant_usage", if sharing == Sharing::Grant { "1" } else { "0" })
    }

    pub fn with(mut self, node: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.nodes.insert(node, value.as_ref().to_owned());
        self
    }

    pub fn without(mut self, node: &'static str) -> Self {
        self.nodes.remove(node);
        self
    }

    /// The backend's directory of this disk.
    pub fn path(&self) -> String {
        format!("/local/domain/0/backend/{}/{}/{}", self.kind, self.domid, self.devid)
    }

    fn node(&self, node: &str) -> String {
        format!("{}/{node}", self.path())
    }
}

/// One host with its backend. Nothing happens in the backend's handshake but in [`Host::settle`]; guests'
/// accesses are answered at any time.
pub struct Host<B: Backend = Disks> {
    /// The toolstack's connection.
    pub store: FakeStore,
    backend: Option<Handshake<WatchedStore, FakePlatform, B>>,
    make_backend: Box<dyn Fn() -> B>,
    map_budget: MapBudget,
    on_write: Arc<Mutex<Option<OnWrite>>>,
    on_transaction: Arc<Mutex<Option<OnTransaction>>>,
    platform: FakePlatform,
    images: TempDir,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    pub fn new() -> Self {
        Self::with_settings(Settings::default())
    }

    pub fn with_settings(settings: Settings) -> Self {
        let budget = settings.map_budget();
        Self::with_backend(budget, move || Disks::new(settings.clone()))
    }

    /// What the disks that are there have done.
    pub fn figures(&mut self) -> Vec<Arc<Figures>> {
        self.backend.as_mut().expect("a running backend").figures()
    }
}

impl<B: Backend> Host<B> {
    /// With a backend of any kind.
    pub fn with_backend(map_budget: MapBudget, make_backend: impl Fn() -> B + 'static) -> Self {
        let store = FakeStore::new();
        store.mkdir(None, "/local/domain/0/backend").unwrap();
        let mut host = Self {
            store,
            backend: None,
            on_write: Arc::default(),
            on_transaction: Arc::default(),
            platform: FakePlatform::default(),
            make_backend: Box::new(make_backend),
            map_budget,
            images: TempDir::new().unwrap(),
        };
        host.start_backend();
        host
    }

    /// A backend process starts.
    pub fn start_backend(&mut self) {
        let store = WatchedStore {
            inner: self.store.connect(0),
            on_write: Arc::clone(&self.on_write),
            on_transaction: Arc::clone(&self.on_transaction),
        };
        let (platform, backend) = (self.platform.clone(), (self.make_backend)());
        let backend = Handshake::new(store, platform, backend, self.map_budget);
        self.backend = Some(backend.unwrap());
    }

    /// The backend's process ends.
    pub fn stop_backend(&mut self) {
        self.backend = None;
    }

    /// The operator says that images have other sizes now. Guests hear of it soon.
    pub fn refresh_capacities(&self) {
        self.backend.as_ref().expect("a running backend").refresh();
    }

    /// Does `look` at everything that the backend is about to write.
    pub fn on_write(&self, look: impl Fn(&str, &[u8]) + Send + Sync + 'static) {
        *self.on_write.lock().unwrap() = Some(Box::new(look));
    }

    /// Does this before the next transaction of the backend's begins.
    pub fn on_transaction(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.on_transaction.lock().unwrap() = Some(Box::new(meanwhile));
    }

    /// The domains there are.
    pub fn platform(&self) -> FakePlatform {
        self.platform.clone()
    }

    /// A guest is made: small, with two banks of RAM.
    pub fn create_guest(&self, domid: DomId) -> FakeDomain {
        self.create_guest_under(domid, 4096)
    }

    /// The same, and the backend's kernel has pages of this size.
    pub fn create_guest_under(&self, domid: DomId, kernel_page_size: usize) -> FakeDomain {
        let guest = FakeDomain::builder().domid(domid).vcpus(2);
        let domain = guest.kernel_page_size(kernel_page_size).build();
        self.platform.0.lock().unwrap().insert(domid, domain.clone());
        self.store.introduce_domain(domid);
        domain
    }

    /// A guest is destroyed: first Xen knows no more of it, then everybody is told.
    pub fn destroy_guest(&self, domid: DomId) {
        let domain = self.platform.0.lock().unwrap().remove(&domid).expect("a guest");
        domain.destroy();
        self.store.rm(None, &format!("/local/domain/{domid}")).unwrap();
        self.store.release_domain(domid);
    }

    /// An image of `len` bytes, each sector of which holds its number.
    pub fn image(&self, name: &str, len: u64) -> PathBuf {
        let path = self.images.path().join(name);
        let file = File::create(&path).unwrap();
        for sector in 0..len / 512 {
            file.write_all_at(&sector_pattern(sector), sector * 512).unwrap();
        }
        file.set_len(len).unwrap();
        path
    }

    /// The toolstack adds a disk, as libxl does: all nodes in one transaction.
    pub fn plug(&self, disk: &Disk) {
        let tx = self.store.transaction_start().unwrap();
        for (node, value) in &disk.nodes {
            self.store.write(Some(tx), &disk.node(node), value).unwrap();
        }
        self.store.transaction_end(tx, true).unwrap();
    }

    /// The toolstack asks the backend to let go.
    pub fn unplug(&self, disk: &Disk) {
        let tx = self.store.transaction_start().unwrap();
        self.store.write(Some(tx), &disk.node("online"), b"0").unwrap();
        self.store.write(Some(tx), &disk.node("state"), b"5").unwrap();
        self.store.transaction_end(tx, true).unwrap();
    }

    /// The disk's directory goes.
    pub fn remove(&self, disk: &Disk) {
        self.store.rm(None, &disk.path()).unwrap();
    }

    /// Lets the backend do what there is to do. It must come to rest by itself.
    pub fn settle(&mut self) {
        let backend = self.backend.as_mut().expect("a running backend");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            backend.handle_events().unwrap();
            let mut fds = [backend.store().as_fd(), backend.events()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            // Who waits for a thread hears of it.
            let tv_nsec = if backend.is_at_rest() { 0 } else { 10_000_000 };
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec };
            if poll(&mut fds, Some(&timeout)).unwrap() == 0 && backend.is_at_rest() {
                return;
            }
        }
        panic!("the backend finds something to do for ever");
    }

    /// Lets the backend do what there is to do, whether threads of its have answered or not.
    pub fn look(&mut self) {
        self.backend.as_mut().expect("a running backend").handle_events().unwrap();
    }

    /// Lets the backend do what there is to do, now and later, until `done`.
    pub fn settle_for(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < patience, "it isn't done after {patience:?}");
            self.look();
            let backend = self.backend.as_ref().expect("a running backend");
            let pause = backend.wait().unwrap_or(Duration::from_millis(10));
            thread::sleep(pause.min(Duration::from_millis(10)));
        }
    }

    /// The backend notices that xenstore is gone.
    pub fn assert_disconnected(&mut self) {
        let backend = self.backend.as_mut().expect("a running backend");
        assert!(backend.handle_events().unwrap_err().is_disconnected());
    }

    /// Plugs a disk that must be served.
    pub fn serve(&mut self, disk: &Disk) {
        self.plug(disk);
        self.settle();
        assert_eq!(self.state(disk).as_deref(), Some("2"), "{:?}", self.error(disk));
    }

    pub fn state(&self, disk: &Disk) -> Option<String> {
        self.read(&disk.node("state"))
    }

    /// What the backend says is wrong with a disk.
    pub fn error(&self, disk: &Disk) -> Option<String> {
        self.read(&disk.node("error"))
    }

    /// The same, where Linux's drivers put it.
    pub fn lasting_error(&self, disk: &Disk) -> Option<String> {
        self.read(&format!(
            "/local/domain/0/error/backend/{}/{}/{}/error",
            disk.kind, disk.domid, disk.devid
        ))
    }

    fn read(&self, path: &str) -> Option<String> {
        match self.store.read(None, path) {
            Ok(value) => Some(String::from_utf8(value).expect("text")),
            Err(error) if error.is_not_found() => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// A disk's registers, from the guest's first vCPU.
    pub fn window(&self, disk: &Disk) -> Window {
        Window::new(self.domain(disk.domid).vcpu(0), disk.base)
    }

    pub fn domain(&self, domid: DomId) -> FakeDomain {
        self.platform.0.lock().unwrap()[&domid].clone()
    }
}

/// What [`Host::image`] puts into a sector.
pub fn sector_pattern(sector: u64) -> [u8; 512] {
    let mut bytes = [sector as u8; 512];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// A host with one guest (domain 1) and one disk of 1 MiB.
pub struct OneDisk {
    pub host: Host,
    pub domain: FakeDomain,
    pub kernel: Arc<GuestKernel>,
    pub disk: Disk,
    pub image: PathBuf,
}

/// Bytes of [`OneDisk`]'s image.
pub const DISK_LEN: u64 = 1 << 20;

impl OneDisk {
    pub fn new(sharing: Sharing) -> Self {
        Self::configured(sharing, |disk| disk)
    }

    pub fn configured(sharing: Sharing, configure: impl FnOnce(Disk) -> Disk) -> Self {
        Self::on(Host::new(), sharing, configure)
    }

    /// Served as the operator wants it.
    pub fn with_settings(sharing: Sharing, settings: DiskSettings) -> Self {
        Self::on(Host::with_settings(Settings::new(settings)), sharing, |disk| disk)
    }

    fn on(mut host: Host, sharing: Sharing, configure: impl FnOnce(Disk) -> Disk) -> Self {
        let domain = host.create_guest(1);
        let kernel = GuestKernel::new(&domain, sharing);
        let image = host.image("disk.img", DISK_LEN);
        let disk = configure(Disk::new(1, 0, &image).sharing(sharing));
        host.serve(&disk);
        Self { host, domain, kernel, disk, image }
    }

    pub fn window(&self) -> Window {
        self.host.window(&self.disk)
    }

    pub fn interrupts(&self) -> u64 {
        self.domain.irq_count(self.disk.irq)
    }

    /// What the image holds now.
    pub fn contents(&self) -> Vec<u8> {
        fs::read(&self.image).unwrap()
    }
}
