use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use rustix::process::DumpableBehavior;

use crate::seccomp::{self, OnRefusal, Rules, ThreadFilters};
use crate::{
    Access, Ids, Layer, Limits, Report, SandboxError, State, capabilities, descriptors, empty_root,
    heap, identity, keyring, landlock, memory, namespaces,
};

/// Configuration of the sandbox. Nothing happens before [`enter`](Self::enter).
#[derive(Clone, Debug)]
pub struct Sandbox {
    ids: Option<Ids>,
    limits: Limits,
    descriptors: Option<Vec<RawFd>>,
    off: Vec<Layer>,
    rules: Rules,
}

/// Result of entering the sandbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Confined {
    /// Which layers are active.
    pub report: Report,
    /// Filters for the threads that the process will start.
    pub filters: ThreadFilters,
}

impl Sandbox {
    /// All layers, with user and group ID `ids`. With `None` they are left unchanged.
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

    /// Sets the resource limits; the default is [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets which of the guest's memory may be mapped; the default is [`Access::ALL`].
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.rules.access = access;
        self
    }

    /// The descriptors that are expected to be open, in addition to the three standard ones.
    /// [`enter`](Self::enter) fails if there are others.
    #[must_use]
    pub fn descriptors<'a>(mut self, open: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        self.descriptors = Some(open.into_iter().map(|fd| fd.as_raw_fd()).collect());
        self
    }

    /// Allows another system call (`libc::SYS_…`), with any arguments, to [`Guest`] and queue
    /// threads, for a device that needs it.
    ///
    /// [`Guest`]: crate::ThreadKind::Guest
    #[must_use]
    pub fn allow_call(mut self, call: libc::c_long) -> Self {
        self.rules.calls.push(call);
        self
    }

    /// Allows another ioctl request in the same way.
    #[must_use]
    pub fn allow_ioctl(mut self, request: u32) -> Self {
        self.rules.ioctls.push(request);
        self
    }

    /// Sets what happens on a system call that isn't allowed; the default is [`OnRefusal::End`].
    #[must_use]
    pub fn on_refusal(mut self, on_refusal: OnRefusal) -> Self {
        self.rules.on_refusal = on_refusal;
        self
    }

    /// Disables a layer.
    #[must_use]
    pub fn without(mut self, layer: Layer) -> Self {
        self.off.push(layer);
        self
    }

    /// Confines the calling process irrevocably. It must be single-threaded, with /proc mounted. With
    /// glibc, the threads that it starts share one heap (`M_ARENA_MAX`).
    ///
    /// # Errors
    /// See [`SandboxError`]. The process may be partly confined and should exit.
    pub fn enter(self) -> Result<Confined, SandboxError> {
        descriptors::check_threads()?;
        heap::share();
        descriptors::check(self.descriptors.as_deref())?;
        let root = rustix::process::geteuid().is_root();
        let mut filters = ThreadFilters::NONE;
        let mut report = Report::default();
        for layer in Layer::ALL {
            if layer == Layer::Identity && root && !self.off.contains(&Layer::Capabilities) {
                // Requires capabilities that are lost with user ID 0.
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
            // Handled by the caller, which returns its filters.
            Layer::Seccomp => Ok(State::Off),
        }
    }
}
