use std::io;

use crate::{Layer, SandboxError, State};

const MISSING: &str = "the kernel is older than Linux 6.3";

/// `PR_SET_MDWE` with `PR_MDWE_REFUSE_EXEC_GAIN`.
pub(crate) fn enter() -> Result<State, SandboxError> {
    let none: libc::c_ulong = 0;
    let flags = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    // SAFETY: the call takes only integers.
    let result = unsafe { libc::prctl(libc::PR_SET_MDWE, flags, none, none, none) };
    let result = if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
    State::unless_unknown(Layer::WriteXorExecute, "PR_SET_MDWE", MISSING, result)
}

pub(crate) fn probe() -> State {
    let none: libc::c_ulong = 0;
    // SAFETY: the call takes only integers, and changes nothing.
    let result = unsafe { libc::prctl(libc::PR_GET_MDWE, none, none, none, none) };
    State::if_known(result.into(), MISSING)
}
