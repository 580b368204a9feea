//! The ports on both sides, and the descriptors.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use super::call::Call;
use crate::DomId;

/// The first local port: a real dom0 has many in use already.
const LOCAL_BASE: u32 = 32;
/// The first port of a domain: port 0 is never valid (Xen `common/event_channel.c`).
const REMOTE_BASE: u32 = 1;

pub(super) type RemotePort = (DomId, u32);

pub(super) fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// What Xen knows of a domain.
pub(super) enum Life {
    Alive,
    /// Without ports; known for as long as this says that pages of it are held.
    Dying(Box<dyn Fn() -> bool + Send>),
}

/// A port of a guest, offered to the local domain.
#[derive(Default)]
pub(super) struct Remote {
    pub(super) peer: Option<u32>,
    pub(super) notified: bool,
    pub(super) notifications: u64,
}

/// A local port.
pub(super) struct Local {
    pub(super) owner: u64,
    pub(super) peer: Option<RemotePort>,
    /// The local port that it is bound to instead.
    pub(super) loopback: Option<u32>,
    masked: bool,
    /// An event came while the port was masked.
    latched: bool,
}

/// An open descriptor.
pub(super) struct Handle {
    pub(super) ring: VecDeque<u32>,
    pub(super) overflow: bool,
    pub(super) restricted: Option<DomId>,
    readable: Arc<File>,
    signalled: bool,
}

impl Handle {
    /// Makes the eventfd readable exactly while there is something to report.
    pub(super) fn update_readable(&mut self) {
        let wanted = self.overflow || !self.ring.is_empty();
        if wanted == self.signalled {
            return;
        }
        self.signalled = wanted;
        let mut eventfd: &File = &self.readable;
        let done = if wanted {
            eventfd.write(&1_u64.to_ne_bytes())
        } else {
            eventfd.read(&mut [0; size_of::<u64>()])
        };
        assert_eq!(done.expect("an eventfd between 0 and 1"), size_of::<u64>());
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) domains: BTreeMap<DomId, Life>,
    pub(super) remotes: BTreeMap<RemotePort, Remote>,
    pub(super) locals: BTreeMap<u32, Local>,
    pub(super) handles: BTreeMap<u64, Handle>,
    pub(super) faults: Vec<(Call, u32, i32)>,
    next_handle: u64,
}

impl State {
    /// The error injected for `call`, if one is due.
    pub(super) fn fault(&mut self, call: Call) -> io::Result<()> {
        let Some(at) = self.faults.iter().position(|(kind, ..)| *kind == call) else {
            return Ok(());
        };
        let (_, times, code) = &mut self.faults[at];
        let code = *code;
        *times -= 1;
        if *times == 0 {
            self.faults.remove(at);
        }
        Err(errno(code))
    }

    pub(super) fn open(&mut self) -> io::Result<(u64, Arc<File>)> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            // As open(2) of the real device fails: EMFILE, ENFILE.
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made this descriptor, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let readable = Arc::new(File::from(fd));
        let id = self.next_handle;
        self.next_handle += 1;
        let handle = Handle {
            ring: VecDeque::new(),
            overflow: false,
            restricted: None,
            readable: Arc::clone(&readable),
            signalled: false,
        };
        self.handles.insert(id, handle);
        Ok((id, readable))
    }

    pub(super) fn handle(&mut self, id: u64) -> &mut Handle {
        self.handles.get_mut(&id).expect("a handle lives as long as its FakeEvtchn")
    }

    pub(super) fn alloc_unbound(&mut self, domid: DomId) -> u32 {
        let life = self.domains.entry(domid).or_insert(Life::Alive);
        assert!(matches!(life, Life::Alive), "domain {domid} is dying");
        let port = (REMOTE_BASE..)
            .find(|port| !self.remotes.contains_key(&(domid, *port)))
            .expect("a free port");
        self.remotes.insert((domid, port), Remote::default());
        port
    }

    pub(super) fn bind(&mut self, owner: u64, remote: RemotePort) -> io::Result<u32> {
        if self.handle(owner).restricted.is_some_and(|domid| domid != remote.0) {
            return Err(errno(libc::EACCES));
        }
        match self.domains.get(&remote.0) {
            Some(Life::Alive) => {}
            // Xen finds the domain, but no port (`evtchn_bind_interdomain` in its common/event_channel.c).
            Some(Life::Dying(is_held)) if is_held() => return Err(errno(libc::EINVAL)),
            _ => return Err(errno(libc::ESRCH)),
        }
        let unbound = self.remotes.get_mut(&remote).filter(|remote| remote.peer.is_none());
        let unbound = unbound.ok_or_else(|| errno(libc::EINVAL))?;
        // The lowest free port, as Xen picks it: a number is reused at once, to the sorrow of stale users.
        let port =
            (LOCAL_BASE..).find(|port| !self.locals.contains_key(port)).expect("a free port");
        unbound.peer = Some(port);
        self.insert(owner, port, Some(remote), None);
        Ok(port)
    }

    fn insert(&mut self, owner: u64, port: u32, peer: Option<RemotePort>, loopback: Option<u32>) {
        let local = Local { owner, peer, loopback, masked: false, latched: false };
        self.locals.insert(port, local);
        self.deliver(port);
    }

    pub(super) fn bind_loopback(&mut self, owner: u64) -> io::Result<(u32, u32)> {
        if self.handle(owner).restricted.is_some() {
            return Err(errno(libc::EACCES));
        }
        let mut free = (LOCAL_BASE..).filter(|port| !self.locals.contains_key(port));
        let (first, second) = (free.next().expect("a port"), free.next().expect("another"));
        drop(free);
        self.insert(owner, first, None, Some(second));
        self.insert(owner, second, None, Some(first));
        Ok((first, second))
    }

    /// An event for a local port.
    pub(super) fn deliver(&mut self, port: u32) {
        let Some(local) = self.locals.get_mut(&port) else { return };
        if local.masked {
            local.latched = true;
            return;
        }
        local.masked = true;
        let owner = local.owner;
        let handle = self.handle(owner);
        handle.ring.push_back(port);
        handle.update_readable();
    }

    pub(super) fn unmask(&mut self, owner: u64, port: u32) {
        let Some(local) = self.locals.get_mut(&port) else { return };
        if local.owner != owner || !local.masked {
            return;
        }
        local.masked = false;
        if std::mem::take(&mut local.latched) {
            self.deliver(port);
        }
    }

    pub(super) fn owned(&mut self, owner: u64, port: u32) -> io::Result<&mut Local> {
        let local = self.locals.get_mut(&port).filter(|local| local.owner == owner);
        local.ok_or_else(|| errno(libc::ENOTCONN))
    }

    /// Closes a local port; its remote end goes back to unbound.
    pub(super) fn close_local(&mut self, port: u32) {
        let peer = self.locals.remove(&port).and_then(|local| local.peer);
        if let Some(remote) = peer.and_then(|peer| self.remotes.get_mut(&peer)) {
            remote.peer = None;
        }
    }

    /// Closes a guest's port; a local port bound to it stays, with nobody at the other end.
    pub(super) fn close_remote(&mut self, remote: RemotePort) {
        let peer = self.remotes.remove(&remote).and_then(|remote| remote.peer);
        if let Some(local) = peer.and_then(|peer| self.locals.get_mut(&peer)) {
            local.peer = None;
        }
    }
}
