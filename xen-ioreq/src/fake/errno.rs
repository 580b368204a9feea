//! Errors as the kernel gives them.

use std::io;

pub(super) fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
