use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::process::DumpableBehavior;

use crate::seccomp::{self, OnRefusal, Rules, ThreadFilters};
use crate::{
    Access, Ids, Layer, Limits, Report, SandboxError, State, capabilities, descriptors, empty_root,
    identity, keyring, landlock, memory, namespaces,
};

/// What a process of one guest is confined to. Nothing happens before [`enter`](Self::enter).
#[derive(Clone, Debug)]
pub struct Sandbox {
    ids: Option<Ids>,
    limits: Limits,
    descriptors: Option<Vec<RawFd>>,
    off: Vec<Layer>,
    rules: Rules,
}

/// A process that is confined.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Confined {
    /// Which layers are on.
    pub report: Report,
    /// What confines the threads that it starts further.
    pub filters: ThreadFilters,
}

impl Sandbox {
    /// With every layer, and the identity of `ids`; without one, the process stays who it is.
    #[must_use]
    pub fn new(ids: Option<Ids>) -> Self {
        let (calls, ioctls) = (Vec::new(), Vec::new());
        let on_refusal = OnRefusal::default();
        Self {
            ids,
            limits: Limits::default(),
            descriptors: None,
            off: Vec::new(),
            rules: Rules { access: Access::ALL, calls, ioctls, on_refusal },
        }
    }

    /// Instead of [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Which of the guest's memory the process may reach; all, unless this says otherwise.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.rules.access = access;
        self
    }

    /// The descriptors that are meant to be open, beside the three standard ones: one more, and
    /// [`enter`](Self::enter) fails.
    #[must_use]
    pub fn descriptors<'a>(mut self, open: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        self.descriptors = Some(open.into_iter().map(|fd| fd.as_raw_fd()).collect());
        self
    }

    /// A system call (`libc::SYS_…`) that this kind of device needs and disks don't. The guest's
    /// thread and its queues' may make it, whatever its arguments.
    #[must_use]
    pub fn allow_call(mut self, call: libc::c_long) -> Self {
        self.rules.calls.push(call);
        self
    }

    /// The same of an ioctl.
    #[must_use]
    pub fn allow_ioctl(mut self, request: u32) -> Self {
        self.rules.ioctls.push(request);
        self
    }

    /// What becomes of the process if it makes a call that it may not; it ends, unless this says
    /// otherwise.
    #[must_use]
    pub fn on_refusal(mut self, on_refusal: OnRefusal) -> Self {
        self.rules.on_refusal = on_refusal;
        self
    }

    /// Leaves a layer out.
    #[must_use]
    pub fn without(mut self, layer: Layer) -> Self {
        self.off.push(layer);
        self
    }

    /// Confines the calling process, for good. It has one thread, and /proc is mounted.
    ///
    /// # Errors
    /// See [`SandboxError`]. The process may be confined in part, and should end.
    pub fn enter(self) -> Result<Confined, SandboxError> {
        descriptors::check_threads()?;
        descriptors::check(self.descriptors.as_deref())?;
        let root = rustix::process::geteuid().is_root();
        let mut filters = ThreadFilters::NONE;
        let mut report = Report::default();
        for layer in Layer::ALL {
            if layer == Layer::Identity && root && !self.off.contains(&Layer::Capabilities) {
                // What this takes is gone with root's identity.
                capabilities::bound()?;
            }
            let state = if self.off.contains(&layer) {
                State::Off
            } else if !root && layer.takes_root() {
                State::not_root()
            } else if layer == Layer::Seccomp {
                let (state, threads) = seccomp::enter(&self.rules)?;
                filters = threads;
                state
            } else {
                self.enter_layer(layer)?
            };
            report.add(layer, state);
        }
        Ok(Confined { report, filters })
    }

    fn enter_layer(&self, layer: Layer) -> Result<State, SandboxError> {
        match layer {
            Layer::EmptyRoot => empty_root::enter(),
            Layer::Network | Layer::Ipc | Layer::Uts => namespaces::enter(layer),
            Layer::Limits => self.limits.enter(),
            Layer::Identity => {
                let Some(ids) = self.ids else { return Ok(State::Off) };
                identity::enter(ids)
            }
            Layer::Keyring => keyring::enter(),
            Layer::Capabilities => capabilities::clear(),
            Layer::NoNewPrivs => {
                let set = rustix::thread::set_no_new_privs(true);
                set.map_err(SandboxError::layer(layer, "PR_SET_NO_NEW_PRIVS"))?;
                Ok(State::On)
            }
            Layer::Undumpable => {
                let set = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
                set.map_err(SandboxError::layer(layer, "PR_SET_DUMPABLE"))?;
                Ok(State::On)
            }
            Layer::WriteXorExecute => memory::enter(),
            Layer::Landlock => landlock::enter(),
            // Entered by the caller, which wants its filters.
            Layer::Seccomp => Ok(State::Off),
        }
    }
}
