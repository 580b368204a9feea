//! System call filters for each kind of thread.

mod calls;
mod filter;
mod ioctls;
mod kind;
mod refused;
mod rules;

use std::sync::Arc;

use seccompiler::{BpfProgram, apply_filter};

use crate::report::is_unknown;
use crate::{Layer, SandboxError, State};

pub use kind::ThreadKind;
pub use refused::OnRefusal;
pub(crate) use rules::Rules;

const MISSING: &str = "the kernel has no CONFIG_SECCOMP_FILTER";

/// Filters for threads that are started in the sandbox. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ThreadFilters(Option<Arc<Programs>>);

#[derive(Debug)]
struct Programs {
    sync_queue: BpfProgram,
    uring_queue: BpfProgram,
    log: BpfProgram,
}

impl ThreadFilters {
    /// No filters, for threads of a process that isn't confined.
    pub const NONE: Self = Self(None);

    /// Installs the filter for `kind` in the calling thread. Does nothing if the sandbox was entered
    /// without [`Layer::Seccomp`].
    ///
    /// # Errors
    /// [`SandboxError::Filter`].
    pub fn apply(&self, kind: ThreadKind) -> Result<(), SandboxError> {
        let Some(programs) = &self.0 else { return Ok(()) };
        let program = match kind {
            ThreadKind::Guest => return Ok(()),
            ThreadKind::SyncQueue => &programs.sync_queue,
            ThreadKind::UringQueue => &programs.uring_queue,
            ThreadKind::Log => &programs.log,
        };
        apply_filter(program).map_err(SandboxError::Filter)
    }
}

/// Installs the filter of [`ThreadKind::Guest`] in the calling thread, from which all others inherit.
pub(crate) fn enter(rules: &Rules) -> Result<(State, ThreadFilters), SandboxError> {
    let programs = Programs {
        sync_queue: filter::program(ThreadKind::SyncQueue, rules)?,
        uring_queue: filter::program(ThreadKind::UringQueue, rules)?,
        log: filter::program(ThreadKind::Log, rules)?,
    };
    let guest = filter::program(ThreadKind::Guest, rules)?;
    let failed = SandboxError::layer(Layer::Seccomp, "handling SIGSYS");
    refused::handle(rules.on_refusal).map_err(failed)?;
    match apply_filter(&guest) {
        Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
            if is_unknown(&error) =>
        {
            return Ok((State::Missing(MISSING.into()), ThreadFilters::NONE));
        }
        result => result.map_err(SandboxError::Filter)?,
    }
    Ok((State::On, ThreadFilters(Some(Arc::new(programs)))))
}

/// Whether the kernel supports filters.
pub(crate) fn probe() -> State {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: the call reads one u32, which outlives it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    State::if_known(result, MISSING)
}
