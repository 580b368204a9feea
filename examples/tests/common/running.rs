//! A backend that runs as the daemon has it.

use std::{
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use backend_process::{Signals, signals};
use rustix::process::{Signal, getpid, kill_process};
use xen_ioreq::fake::FakeDomain;
use xen_store::fake::FakeStore;
use xen_virtio_backend::{
    daemon::{Connect, ContactError, Daemon, DaemonError, Extras, Orders},
    fake::{DeviceConfig, GuestKernel, Sharing, until},
};
use xen_virtio_blk::disks::Disks;

use super::{host::Host, virtio_driver::probe};

/// Signals reach every test of this process.
static SIGNALS: Mutex<()> = Mutex::new(());

/// A host whose backend runs as the daemon has it, on a thread.
pub struct Running {
    pub host: Host,
    /// Whether a lost xenstore can be reached.
    pub reachable: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), DaemonError>>>,
    log: tempfile::NamedTempFile,
    /// While it is locked, whoever logs waits.
    pub hold_log: Arc<Mutex<()>>,
    _alone: MutexGuard<'static, ()>,
}

/// Writes to the log when the test lets it.
#[derive(Clone)]
struct HeldLog {
    file: Arc<fs::File>,
    held: Arc<Mutex<()>>,
}

impl io::Write for HeldLog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let _free = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (&*self.file).write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Running {
    pub fn new() -> Self {
        Self::with(Extras::default())
    }

    pub fn with(extras: Extras<Disks>) -> Self {
        let alone = SIGNALS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut host = Host::new();
        host.stop_backend();
        let orders = Orders {
            stop: Signals::new(&[signals::SIGTERM]).unwrap(),
            report: Signals::new(&[signals::SIGUSR1]).unwrap(),
            resize: Signals::new(&[signals::SIGHUP]).unwrap(),
        };
        let reachable = Arc::new(AtomicBool::new(true));
        // A way to xenstore that is never lost itself.
        let (hub, there) = (host.store.connect(0), Arc::clone(&reachable));
        let connect: Connect<FakeStore> = Arc::new(move || match there.load(Ordering::SeqCst) {
            true => Ok(hub.connect(0)),
            false => Err(ContactError::System(io::ErrorKind::ConnectionRefused.into())),
        });
        let handshake = host.handshake(host.store.connect(0)).unwrap();
        let daemon = Daemon::new(handshake, connect, orders, extras);
        let log = tempfile::NamedTempFile::new().unwrap();
        let held_log = HeldLog { file: Arc::new(log.reopen().unwrap()), held: Arc::default() };
        let hold_log = Arc::clone(&held_log.held);
        let logger = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || held_log.clone())
            .finish();
        let thread =
            thread::spawn(move || tracing::subscriber::with_default(logger, || daemon.run()));
        Self { host, reachable, thread: Some(thread), log, hold_log, _alone: alone }
    }

    /// A guest with a disk that is served.
    pub fn guest(&mut self, domid: u16) -> (FakeDomain, DeviceConfig) {
        let domain = self.host.create_guest(domid);
        let disk = DeviceConfig::disk(domid, 0, self.host.image(&format!("{domid}.img"), 8192));
        self.host.add_device(&disk);
        until("InitWait", || self.host.state(&disk).as_deref() == Some("2"));
        (domain, disk)
    }

    pub fn stop(&self) {
        let _ = kill_process(getpid(), Signal::TERM);
    }

    pub fn stop_and_end(&mut self) {
        self.stop();
        self.end().unwrap();
    }

    pub fn says(&self, text: &str) -> bool {
        fs::read_to_string(self.log.path()).unwrap().lines().any(|line| line.contains(text))
    }

    pub fn is_running(&self) -> bool {
        !self.thread.as_ref().expect("not ended yet").is_finished()
    }

    /// How it ends, which it must soon.
    pub fn end(&mut self) -> Result<(), DaemonError> {
        until("the end", || !self.is_running());
        self.thread.take().expect("not ended yet").join().expect("no panic")
    }

    /// What the guest reads of the disk's second sector.
    pub fn sector(&self, domain: &FakeDomain, disk: &DeviceConfig) -> [u8; 512] {
        let kernel = GuestKernel::new(domain, Sharing::Foreign);
        let mut driver = probe(self.host.window(disk), &kernel).expect("a device");
        let mut data = [0; 512];
        driver.read_blocks(1, &mut data).unwrap();
        data
    }

    /// Xenstored dies; the toolstack's connection is made anew.
    pub fn lose_xenstore(&mut self) {
        self.host.store.disconnect();
        self.host.store = self.host.store.connect(0);
    }
}
