//! What each thread may ask of the kernel.

mod calls;
mod filter;
mod ioctls;
mod refused;

use std::sync::Arc;

use seccompiler::{BpfProgram, apply_filter};

use crate::probe::known;
use crate::report::is_unknown;
use crate::{Access, Layer, SandboxError, State};

pub use refused::OnRefusal;

const MISSING: &str = "the kernel has no CONFIG_SECCOMP_FILTER";

/// What a thread does, and so which system calls it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThreadKind {
    /// Answers the guest's registers, starts and stops the others, talks to the supervisor: the
    /// thread that enters the sandbox. As a filter passes on to the threads that it starts, and can
    /// only be narrowed, this kind may do what any of the others may.
    Guest,
    /// Serves a queue by system calls: reads and writes the image, maps the guest's memory, raises
    /// its interrupt.
    SyncQueue,
    /// The same over an io_uring that exists, and by system calls where the ring can't.
    UringQueue,
    /// Writes to descriptors that are open, and nothing else.
    Log,
}

/// The filters of the threads to come. A copy is cheap.
#[derive(Clone, Debug)]
pub struct ThreadFilters(Option<Arc<Programs>>);

#[derive(Debug)]
struct Programs {
    sync_queue: BpfProgram,
    uring_queue: BpfProgram,
    log: BpfProgram,
}

impl ThreadFilters {
    /// Filters that refuse nothing.
    pub(crate) const NONE: Self = Self(None);

    /// Narrows the calling thread, for good. Nothing happens if the sandbox was entered without
    /// [`Layer::Seccomp`].
    ///
    /// # Errors
    /// The kernel's.
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

/// What of the filters isn't the same for every process.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) access: Access,
    /// System calls and ioctls that this kind of device needs beside the usual.
    pub(crate) calls: Vec<libc::c_long>,
    pub(crate) ioctls: Vec<u32>,
    pub(crate) on_refusal: OnRefusal,
}

/// Confines the calling thread, and those that it will start, to [`ThreadKind::Guest`].
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

/// Whether this kernel has filters.
pub(crate) fn probe() -> State {
    let action = libc::SECCOMP_RET_TRAP;
    // SAFETY: the call reads one u32, which outlives it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    known(result, MISSING)
}
