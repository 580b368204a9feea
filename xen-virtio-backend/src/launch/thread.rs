//! "Processes" that are threads of this one.

use std::{
    io, mem,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use backend_process::{chain, limits};
use rustix::net::SocketAddrUnix;
use xen_ioreq::{DomId, ServerId};
use xen_virtio_sandbox::ThreadFilters;

use super::{Earlier, Launch, LaunchError, Launched, Process};
use crate::{
    backend::Backend,
    guest::{Command, GuestOptions},
    host::Host,
    process::{GuestKey, Line, Parcel, Start, connect_to, listen_at, serve},
};

/// Starts a thread of this process for each guest, which is not confined: for tests, and for programs that serve one
/// guest anyway. Clones know the same threads.
#[derive(Clone, Debug)]
pub struct InThread<H> {
    host: H,
    started: Arc<Mutex<Vec<Started>>>,
}

#[derive(Clone, Debug)]
struct Started {
    key: GuestKey,
    server: ServerId,
    address: SocketAddrUnix,
    end: Arc<Ended>,
}

/// How a thread has ended, when it has.
#[derive(Debug, Default)]
struct Ended {
    how: Mutex<Option<Option<String>>>,
    changed: Condvar,
}

impl Ended {
    fn set(&self, how: Option<String>) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        self.how.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Process for Arc<Ended> {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn wait(&mut self) -> Option<String> {
        let how = self.how.lock().unwrap_or_else(PoisonError::into_inner);
        let how = self.changed.wait_while(how, |how| how.is_none());
        how.unwrap_or_else(PoisonError::into_inner).clone().flatten()
    }

    /// A thread can't be ended from outside.
    fn kill(&self) {}
}

impl<H> InThread<H> {
    /// None yet. They serve guests of `host`.
    pub fn new(host: H) -> Self {
        Self { host, started: Arc::default() }
    }

    /// How many threads there are that have not ended.
    pub fn running(&self) -> usize {
        self.started().iter().filter(|started| !started.end.is_set()).count()
    }

    /// Those whose servers may still be there.
    fn started(&self) -> MutexGuard<'_, Vec<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all end, and waits for that.
    pub fn stop(&self) {
        let started = mem::take(&mut *self.started());
        for Started { address, mut end, .. } in started {
            // As a supervisor would. It takes no part in what commands bring along which devices.
            let line = connect_to(&address).map(|socket| {
                let mut line = Line::to_guest(socket);
                if let Ok(stop) = Parcel::new(&Command::<(), (), ()>::Stop, Vec::new()) {
                    line.push(stop);
                    let _ = line.flush();
                }
                line
            });
            if line.is_ok() || end.is_set() {
                end.wait();
            }
        }
    }
}

impl<H: Host + Clone + Sync> Launch for InThread<H> {
    type Model = H::Model;

    fn model(&self, domid: DomId) -> io::Result<Arc<H::Model>> {
        self.host.model(domid)
    }

    fn launch<B: Backend>(
        &self,
        key: GuestKey,
        options: GuestOptions,
        server: ServerId,
        backend: &B,
    ) -> Result<Launched, LaunchError> {
        let system = LaunchError::system::<io::Error>;
        let address = address().map_err(system("can't name a socket"))?;
        let listener =
            listen_at(&address).map_err(system("can't make the socket of the guest's thread"))?;
        let mut line = Line::to_guest(
            connect_to(&address).map_err(system("can't connect to the guest's thread"))?,
        );
        let setup = backend.setup();
        let start = Start { key, options, server, confinement: None, setup };
        line.push(Parcel::new(&start, Vec::new()).map_err(LaunchError::Start)?);
        let end = Arc::<Ended>::default();
        let (host, its_end) = (self.host.clone(), Arc::clone(&end));
        let body = move || its_end.set(serve_in_thread::<B, H>(listener, &host));
        let name = format!("guest-{}", key.domid);
        let started = thread::Builder::new().name(name).spawn(body);
        started.map_err(LaunchError::system("can't start the guest's thread"))?;
        let process = Box::new(Arc::clone(&end));
        self.forget(key);
        self.started().push(Started { key, server, address, end });
        Ok(Launched { line, process })
    }

    fn earlier(&self) -> Vec<Earlier> {
        let connect = |Started { key, server, address, end }: Started| {
            let launched = connect_to(&address)
                .ok()
                .map(|socket| Launched { line: Line::to_guest(socket), process: Box::new(end) });
            Earlier { key, server, launched }
        };
        let started = self.started().clone();
        started.into_iter().map(connect).collect()
    }

    fn forget(&self, key: GuestKey) {
        self.started().retain(|started| started.key != key);
    }
}

fn serve_in_thread<B: Backend, H: Host>(listener: OwnedFd, host: &H) -> Option<String> {
    let confine = |_, _| Ok(ThreadFilters::NONE);
    // What panics has let go of everything when the panic comes here.
    match catch_unwind(AssertUnwindSafe(|| serve::<B, H>(listener, host, confine))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            let advice = limits::advice(&error).map(|advice| format!(": {advice}"));
            Some(format!("an error: {}{}", chain(&error), advice.unwrap_or_default()))
        }
        Err(_) => Some("a panic".to_owned()),
    }
}

/// A name of its own, which is in no file system.
fn address() -> io::Result<SocketAddrUnix> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("xen-virtio-backend-{}-{number}", process::id());
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}
