use std::io;

use crate::{Layer, SandboxError, State};

/// `KEYCTL_JOIN_SESSION_KEYRING` (linux/keyctl.h).
const JOIN_SESSION_KEYRING: libc::c_long = 1;
/// `KEYCTL_GET_KEYRING_ID`, of `KEY_SPEC_SESSION_KEYRING`.
const GET_KEYRING_ID: libc::c_long = 0;
const SESSION_KEYRING: libc::c_long = -3;

const MISSING: &str = "the kernel has no CONFIG_KEYS";

/// Replaces the inherited session keyring by a new anonymous one.
pub(crate) fn enter() -> Result<State, SandboxError> {
    // SAFETY: a null name means an anonymous keyring; the call reads no other memory.
    let serial = unsafe {
        libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    let result = if serial < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    State::unless_unknown(Layer::Keyring, "KEYCTL_JOIN_SESSION_KEYRING", MISSING, result)
}

pub(crate) fn probe() -> State {
    // SAFETY: the call takes only integers, and creates no keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0) };
    State::if_known(result, MISSING)
}
