//! Processes of their own, which run the program that the supervisor is.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use backend_process::{chain, signals};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::retry_on_intr,
    net::{SocketAddrUnix, sockopt::socket_peercred},
    process::{
        Pid, PidfdFlags, Resource, Signal, getrlimit, getuid, pidfd_open, pidfd_send_signal,
    },
};
use tracing::{debug, info, warn};
use xen_ioreq::{DomId, ServerId, XenDeviceModel};
use xen_virtio_sandbox::{Cgroup, IdRange, close_on_exec, probe};

use super::{
    Earlier, Launch, LaunchError, Launched, Process, cgroups::Cgroups, isolation::Isolation,
    program::GUEST_PROCESS, server_file::ServerFile,
};
use crate::{
    backend::Backend,
    guest::GuestOptions,
    host::{Host, Xen},
    node::Sharing,
    process::{Confinement, GuestKey, Line, Parcel, Start, connect_to, listen_at},
};

/// Threads of a guest's process beside those of its devices, at most: the guest's, the supervisor's, the log's, one that
/// unmaps; and for each device one that loads it and one that closes it.
const OWN_TASKS: u32 = 64;

/// Said of an address where nobody listens.
const NOBODY: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];

/// What the processes keep of the environment.
const ENVIRONMENT: [&str; 3] = [LOG_FILTER, "RUST_BACKTRACE", "TZ"];
const LOG_FILTER: &str = "RUST_LOG";

/// Starts a process for each guest: this program, once more.
#[derive(Debug)]
pub struct Exec {
    /// Where the processes listen. Nobody else may look there.
    dir: PathBuf,
    isolation: Isolation,
    ids: Option<IdRange>,
    cgroups: Cgroups,
    /// Instead of what the environment says.
    log_filter: Option<String>,
}

impl Exec {
    /// The processes listen in `dir`, which is made if it isn't there. Logs what the kernel lacks to confine them.
    ///
    /// # Errors
    /// The directory can't be made.
    pub fn new(dir: impl Into<PathBuf>, isolation: Isolation) -> io::Result<Self> {
        let dir = dir.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        if let Err(error) = close_on_exec() {
            warn!(%error, "the processes of guests inherit the descriptors that this program has inherited");
        }
        // It may have been there, for everybody.
        fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let ids = isolation.sandbox.then(|| IdRange::of_user(IdRange::USER)).transpose();
        let ids = ids.unwrap_or_else(|error| {
            warn!(error = %chain(&error), "the processes of all guests run as this user, so that one that a guest has taken over may reach another's");
            None
        });
        let cgroups = Cgroups::find(isolation);
        let launcher = Self { dir, isolation, ids, cgroups, log_filter: None };
        launcher.tell();
        Ok(launcher)
    }

    fn tell(&self) {
        if !self.isolation.sandbox {
            warn!(
                uid = getuid().as_raw(),
                "the processes of guests are not confined, as this program was told so: a guest that takes over the process that serves it has all privileges of this user in this domain, and so every guest's memory and disks"
            );
            return;
        }
        let report = probe();
        if !report.is_complete() {
            warn!(sandbox = %report, "this kernel, or this user, can confine the processes of guests in part only");
        }
    }

    fn address(&self, key: GuestKey) -> io::Result<(PathBuf, SocketAddrUnix)> {
        let path = self.dir.join(key.to_string());
        let address = SocketAddrUnix::new(&path)?;
        Ok((path, address))
    }

    fn confinement(&self, domid: DomId, tasks: u32) -> Result<Option<Confinement>, LaunchError> {
        if !self.isolation.sandbox {
            return Ok(None);
        }
        let ids = self.ids.map(|range| range.for_domain(domid)).transpose()?;
        let open_files = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20);
        // Of the user, who has another process for the guest if its devices share its memory in both ways. Without a user
        // of its own it has all guests'.
        let threads = ids.as_ref().map(|_| u64::from(tasks) * Sharing::ALL.len() as u64);
        let ids = ids.map(|ids| (ids.uid(), ids.gid()));
        Ok(Some(Confinement { ids, open_files, threads }))
    }

    fn spawn<B: Backend>(&self, key: GuestKey, listener: OwnedFd) -> io::Result<Child> {
        let environment = ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?)));
        // What this process runs, even if another file is at its path by now.
        Command::new("/proc/self/exe")
            .arg0(B::NAME)
            .args([OsString::from(GUEST_PROCESS), key.to_string().into()])
            .env_clear()
            .envs(environment)
            .envs(self.log_filter.iter().map(|filter| (LOG_FILTER, filter)))
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            // A terminal's signals are for the supervisor.
            .process_group(0)
            .spawn()
    }

    /// The process that listens for this guest, if there is one. What an ended one has left there is removed.
    fn connect(&self, key: GuestKey) -> Found {
        let Ok((path, address)) = self.address(key) else { return Found::Unreachable };
        let cgroup = self.cgroups.existing(key);
        let socket = match connect_to(&address) {
            Ok(socket) => socket,
            Err(error) if NOBODY.contains(&error.kind()) => {
                // One that a guest has taken over may have closed its socket and still have the guest's event channels.
                if let Some(Err(error)) = cgroup.as_ref().map(Cgroup::kill) {
                    debug!(%key, error = %chain(&error), "what is left of a guest's process can't be killed");
                }
                clean(&path, cgroup);
                return Found::Ended;
            }
            Err(error) => {
                warn!(%key, error = %chain(&error), "the process of a guest can't be reached: it serves its guest on, and ends with it");
                return Found::Unreachable;
            }
        };
        // While the connection stands, the number is that process's.
        let pidfd = socket_peercred(&socket)
            .and_then(|peer| Ok((peer.pid, pidfd_open(peer.pid, PidfdFlags::empty())?)));
        match pidfd {
            Ok((pid, pidfd)) => {
                let process = Guest { pid, pidfd, child: None, path, cgroup };
                let line = Line::to_guest(socket);
                Found::Running(Launched { line, process: Box::new(process) })
            }
            Err(error) => {
                debug!(%key, %error, "the process of a guest ends");
                Found::Ended
            }
        }
    }
}

/// What is found of the process of a guest.
enum Found {
    Running(Launched),
    /// There is none, or no longer.
    Ended,
    /// There may be one.
    Unreachable,
}

impl Launch for Exec {
    type Model = XenDeviceModel;

    fn model(&self, domid: DomId) -> io::Result<Arc<XenDeviceModel>> {
        Xen.model(domid)
    }

    fn launch<B: Backend>(
        &self,
        key: GuestKey,
        options: GuestOptions,
        server: ServerId,
        backend: &B,
    ) -> Result<Launched, LaunchError> {
        if let Found::Running(running) = self.connect(key) {
            let pid = running.process.pid();
            return Err(LaunchError::Busy { program: B::NAME, key, pid });
        }
        let tasks = OWN_TASKS.saturating_add(backend.threads());
        let confinement = self.confinement(key.domid, tasks)?;
        let start = Start { key, options, server, confinement, setup: backend.setup() };
        let start = Parcel::new(&start, Vec::new()).map_err(LaunchError::Start)?;
        let written = ServerFile::new(&self.dir, key).write(server);
        written.map_err(LaunchError::system("can't write down the guest's IOREQ server"))?;
        self.start::<B>(key, start, tasks).inspect_err(|_| self.forget(key))
    }

    fn set_log_filter(&mut self, filter: &str) {
        self.log_filter = Some(filter.to_owned());
    }

    fn earlier(&self) -> Vec<Earlier> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => {
                warn!(dir = %self.dir.display(), %error, "the processes of guests can't be found");
                return Vec::new();
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let keys = names.filter_map(|name| {
            let (domid, sharing) = ServerFile::key_of(&name).split_once('-')?;
            let sharing = Sharing::ALL.into_iter().find(|its| its.to_string() == sharing)?;
            Some(GuestKey { domid: domid.parse().ok()?, sharing })
        });
        // Each has a socket and a file.
        let keys: BTreeSet<_> = keys.collect();
        keys.into_iter().filter_map(|key| self.find(key)).collect()
    }

    fn forget(&self, key: GuestKey) {
        if let Err(error) = ServerFile::new(&self.dir, key).remove() {
            debug!(%key, %error, "the file that tells a process's IOREQ server can't be removed");
        }
    }
}

impl Exec {
    fn find(&self, key: GuestKey) -> Option<Earlier> {
        let launched = match self.connect(key) {
            Found::Running(launched) => Some(launched),
            Found::Ended => None,
            Found::Unreachable => return None,
        };
        match (ServerFile::new(&self.dir, key).read(), launched) {
            (Some(server), launched) => Some(Earlier { key, server, launched }),
            (None, Some(_)) => {
                warn!(%key, "the process of a guest can't be taken over, as it isn't known which IOREQ server it has: it serves its guest on, and ends with it");
                None
            }
            (None, None) => {
                self.forget(key);
                None
            }
        }
    }

    /// Starts the process, and has it told `start`.
    fn start<B: Backend>(
        &self,
        key: GuestKey,
        start: Parcel,
        tasks: u32,
    ) -> Result<Launched, LaunchError> {
        let system = LaunchError::system::<io::Error>;
        let (path, address) =
            self.address(key).map_err(system("can't name the socket of the guest's process"))?;
        let listener =
            listen_at(&address).map_err(system("can't make the socket of the guest's process"))?;
        let socket =
            connect_to(&address).map_err(system("can't connect to the guest's process"))?;
        let mut child = self
            .spawn::<B>(key, listener)
            .map_err(system("can't start the process of the guest"))?;
        let opened =
            pid_of(&child).and_then(|pid| Ok((pid, pidfd_open(pid, PidfdFlags::empty())?)));
        let (pid, pidfd) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(system("can't follow the process of the guest")(error));
            }
        };
        let cgroup = self.cgroups.make(key, tasks);
        if let Some(Err(error)) = cgroup.as_ref().map(|cgroup| cgroup.add(child.id())) {
            warn!(%key, error = %chain(&error), "the guest's process can't be moved to its cgroup");
        }
        info!(domid = key.domid, sharing = %key.sharing, pid = child.id(), "started the process of the guest");
        let mut line = Line::to_guest(socket);
        line.push(start);
        let process = Guest { pid, pidfd, child: Some(child), path, cgroup };
        Ok(Launched { line, process: Box::new(process) })
    }
}

fn pid_of(child: &Child) -> io::Result<Pid> {
    let raw = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The process of a guest.
#[derive(Debug)]
struct Guest {
    pid: Pid,
    pidfd: OwnedFd,
    /// `None` if an earlier supervisor has started it.
    child: Option<Child>,
    path: PathBuf,
    cgroup: Option<Cgroup>,
}

impl Process for Guest {
    fn pid(&self) -> Option<u32> {
        self.pid.as_raw_nonzero().get().try_into().ok()
    }

    fn wait(&mut self) -> Option<String> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if let Err(error) = retry_on_intr(|| poll(&mut fds, None)) {
            debug!(%error, "the end of a guest's process can't be waited for");
        }
        let status = self.child.as_mut().map(Child::wait);
        let killed =
            self.cgroup.as_ref().and_then(Cgroup::oom_kills).is_some_and(|kills| kills > 0);
        clean(&self.path, self.cgroup.take());
        if killed {
            return Some("the kernel, as it used more memory than its cgroup may".to_owned());
        }
        match status? {
            Ok(status) => cause(status),
            Err(error) => Some(format!("an unknown cause ({error})")),
        }
    }

    fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL) {
            debug!(%error, "the process of a guest has ended already");
        }
    }
}

fn cause(status: ExitStatus) -> Option<String> {
    if let Some(signal) = status.signal() {
        return Some(match signals::name(signal) {
            Some(name) => format!("signal {signal} ({name})"),
            None => format!("signal {signal}"),
        });
    }
    status.code().filter(|code| *code != 0).map(|code| format!("an error (exit code {code})"))
}

/// Removes what an ended process has left.
fn clean(path: &Path, cgroup: Option<Cgroup>) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        debug!(path = %path.display(), %error, "the socket of an ended process can't be removed");
    }
    if let Some(Err(error)) = cgroup.map(Cgroup::remove) {
        debug!(error = %chain(&error), "the cgroup of an ended process can't be removed");
    }
}

#[cfg(test)]
mod tests;
