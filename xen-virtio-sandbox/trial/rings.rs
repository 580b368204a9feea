//! What a ring that was made before carries out, and what it must not.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};
use xen_virtio_sandbox::{RingRestrictions, State};

use crate::Action;
use crate::call::{args, call, path};

/// What serving an image takes, if it is only read.
const IMAGE: RingRestrictions<'static> = RingRestrictions::new(&[opcode::Read::CODE]);

pub(crate) fn prepare(action: &str, given: &[&str]) -> Option<io::Result<Action>> {
    let first = given.first().copied().unwrap_or_default();
    Some(match action {
        "ring-setup" => Ok(Box::new(|| {
            let mut parameters = [0_u8; 120];
            let setup = args([8, parameters.as_mut_ptr() as usize]);
            call(libc::SYS_io_uring_setup, setup).map(|fd| fd.to_string())
        })),
        "ring-read" => with_ring(first, true, |ring, file| {
            set_file(ring, file)?;
            read(ring)
        }),
        "ring-file" => with_ring(first, true, |ring, file| {
            set_file(ring, file)?;
            Ok("registered".into())
        }),
        // Of a ring that has its file.
        "ring-ready" => File::open(first).and_then(|file| {
            let mut ring = ready(true)?;
            set_file(&ring, &file)?;
            let action: Action = Box::new(move || read(&mut ring));
            Ok(action)
        }),
        "ring-enable" => disabled(true).map(|ring| {
            let enable = move || ring.submitter().register_enable_rings();
            let action: Action = Box::new(move || enable().map(|()| "enabled".into()));
            action
        }),
        "ring-descriptor" => with_ring(first, given.len() < 2, |ring, file| {
            set_file(ring, file)?;
            let mut buffer = [0u8; 5];
            let fd = types::Fd(file.as_raw_fd());
            carry_out(ring, &opcode::Read::new(fd, buffer.as_mut_ptr(), 5).build())
        }),
        "ring-open" => with_ring(first, given.len() < 2, |ring, file| {
            set_file(ring, file)?;
            let directory = types::Fd(libc::AT_FDCWD);
            let name = path("/dev/null") as *const libc::c_char;
            carry_out(ring, &opcode::OpenAt::new(directory, name).build())
        }),
        "ring-link" => with_ring(first, given.len() < 2, |ring, file| {
            set_file(ring, file)?;
            let mut buffer = [0u8; 5];
            let read = opcode::Read::new(types::Fixed(0), buffer.as_mut_ptr(), 5).build();
            carry_out(ring, &read.flags(squeue::Flags::IO_DRAIN | squeue::Flags::FIXED_FILE))
        }),
        "ring-buffers" => with_ring(first, given.len() < 2, |ring, file| {
            set_file(ring, file)?;
            let mut buffer = [0u8; 512];
            let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            // SAFETY: the buffer outlives the registration, which is undone below.
            unsafe { ring.submitter().register_buffers(&[iovec]) }?;
            ring.submitter().unregister_buffers().map(|()| "registered".into())
        }),
        "ring-table" => with_ring(first, given.len() < 2, |ring, _| {
            ring.submitter().unregister_files().map(|()| "unregistered".into())
        }),
        _ => return None,
    })
}

/// An action with a ring that is made now, and a file that is open.
fn with_ring(
    name: &str,
    restricted: bool,
    action: impl FnOnce(&mut IoUring, &File) -> io::Result<String> + Send + 'static,
) -> io::Result<Action> {
    let file = File::open(name)?;
    let mut ring = ready(restricted)?;
    Ok(Box::new(move || action(&mut ring, &file)))
}

/// A ring with a table of one file, which is none yet.
fn disabled(restricted: bool) -> io::Result<IoUring> {
    let ring: IoUring = IoUring::builder().setup_r_disabled().build(8)?;
    ring.submitter().register_files(&[-1])?;
    if restricted && IMAGE.register(&ring)? != State::On {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    Ok(ring)
}

fn ready(restricted: bool) -> io::Result<IoUring> {
    let ring = disabled(restricted)?;
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

fn set_file(ring: &IoUring, file: &File) -> io::Result<()> {
    ring.submitter().register_files_update(0, &[file.as_raw_fd()]).map(drop)
}

fn read(ring: &mut IoUring) -> io::Result<String> {
    let mut buffer = [0u8; 5];
    carry_out(ring, &opcode::Read::new(types::Fixed(0), buffer.as_mut_ptr(), 5).build())?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

fn carry_out(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<String> {
    // SAFETY: the caller's memory outlives the operation, which is waited for.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map_or(-libc::EIO, |entry| entry.result());
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result.to_string()) }
}
