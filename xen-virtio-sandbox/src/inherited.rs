use std::io;

/// Has all open descriptors, except the three standard ones, closed when this process executes a program
/// (`FD_CLOEXEC`): a supervisor may have inherited some from whoever started it, which guest processes
/// must not get.
///
/// # Errors
/// `EINVAL` or `ENOSYS`: the kernel is older than Linux 5.11.
pub fn close_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes only integers, and closes no descriptor that this process uses.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, AsRawFd};
    use std::process::Command;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn a_program_gets_no_descriptor_that_its_parent_has_inherited() {
        let (reader, writer) = io::pipe().unwrap();
        for fd in [reader.as_fd(), writer.as_fd()] {
            fcntl_setfd(fd, FdFlags::empty()).unwrap();
        }
        let name = std::fs::read_link(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
        let open = || {
            let listed = Command::new("sh").args(["-c", "ls -l /proc/$$/fd"]).output().unwrap();
            String::from_utf8_lossy(&listed.stdout).matches(name.to_str().unwrap()).count()
        };
        assert_eq!(open(), 2);
        close_on_exec().unwrap();
        assert_eq!(open(), 0);
        assert_eq!(fcntl_getfd(&reader).unwrap(), FdFlags::CLOEXEC);
    }
}
