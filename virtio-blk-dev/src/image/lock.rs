use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// The byte that a reader locks; it conflicts with the lock on the whole file that a writer takes.
const READER: Range<u8> = 0..100;

/// The bytes that QEMU locks, one for each permission: from 100 on for those that a process uses, from 200
/// on for those that it doesn't share. Each user holds read locks on its bytes, and then checks that no other
/// holds bytes that conflict with them.
const READS: u8 = 100;
const WRITES: u8 = 101;
const RESIZES: u8 = 103;
const READS_UNSHARED: u8 = 200;
const WRITES_UNSHARED: u8 = 201;
const RESIZES_UNSHARED: u8 = 203;

/// Locks `file` for as long as its open file description exists: exclusively for a writer, shared for a reader.
///
/// The lock is of the open file description (`F_OFD_SETLK`, fcntl(2)) and not of the process, so
/// two disks of one process also exclude each other, and closing another descriptor of the file doesn't
/// release it. A writer locks the whole file, as cloud-hypervisor does, which includes the bytes that QEMU
/// locks. A reader, which must allow other readers, locks and checks bytes as QEMU does. It can't be opened
/// together with a reader that locks the whole file.
pub(super) fn lock(file: &File, exclusive: bool) -> io::Result<()> {
    if exclusive {
        return set(file, libc::F_WRLCK, 0..0);
    }
    set(file, libc::F_RDLCK, READER)?;
    for byte in [READS, WRITES_UNSHARED, RESIZES_UNSHARED] {
        set(file, libc::F_RDLCK, byte..byte.saturating_add(1))?;
    }
    for byte in [WRITES, RESIZES, READS_UNSHARED] {
        if is_locked(file, byte..byte.saturating_add(1))? {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
    }
    Ok(())
}

/// Takes a lock. An empty range stands for the whole file.
fn set(file: &File, kind: libc::c_int, bytes: Range<u8>) -> io::Result<()> {
    let lock = flock(kind, bytes);
    // SAFETY: the descriptor is open, and `lock` outlives the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether another open file description has any lock there.
fn is_locked(file: &File, bytes: Range<u8>) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, bytes);
    // SAFETY: the descriptor is open, and the kernel stores a `flock`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

fn flock(kind: libc::c_int, bytes: Range<u8>) -> libc::flock {
    // SAFETY: `flock` is plain data, of which all-zero is a value: start and length 0 are the
    // whole file, and `l_pid` must be 0 for this kind of lock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_whence = libc::SEEK_SET as _;
    lock.l_start = bytes.start.into();
    lock.l_len = bytes.len() as _;
    lock
}
