use std::ffi::{CString, c_long};
use std::io;

/// Any system call. The C library is left out, as it may make another one of it.
pub(crate) fn call(number: c_long, args: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: each use passes what the call takes; what it stores, it stores in memory of the caller.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The arguments, filled up with zeroes.
pub(crate) fn args<const N: usize>(given: [usize; N]) -> [usize; 6] {
    let mut args = [0; 6];
    args[..N].copy_from_slice(&given);
    args
}

/// A path for a call, which is never freed.
pub(crate) fn path(path: &str) -> usize {
    CString::new(path).unwrap_or_default().into_raw() as usize
}

pub(crate) const AT_FDCWD: usize = libc::AT_FDCWD as usize;
