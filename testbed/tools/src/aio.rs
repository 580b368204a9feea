//! Linux's native asynchronous I/O (include/uapi/linux/aio_abi.h): many requests in flight from one thread.

use memmap2::MmapMut;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// `struct iocb` on a little-endian machine.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    iocb: u64,
    result: i64,
    result2: i64,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;

/// Buffers, each with at most one request in flight.
pub(crate) struct Aio {
    context: libc::c_ulong,
    fd: u32,
    /// Touched only while their request is not in flight.
    buffers: Vec<MmapMut>,
    lens: Vec<u64>,
    iocbs: Vec<Iocb>,
    queued: Vec<*const Iocb>,
    events: Vec<IoEvent>,
    in_flight: usize,
}

impl Aio {
    /// Room for `depth` requests on `file`, which must outlive them; each has a buffer of `bytes`.
    pub(crate) fn new(file: &File, depth: usize, bytes: usize) -> anyhow::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: `context` is a live aio_context_t set to zero, as io_setup(2) wants it.
        let result =
            unsafe { libc::syscall(libc::SYS_io_setup, depth as libc::c_long, &raw mut context) };
        check(result)?;
        Ok(Self {
            context,
            fd: file.as_raw_fd() as u32,
            buffers: (0..depth).map(|_| crate::disk::buffer(bytes)).collect::<Result<_, _>>()?,
            lens: vec![0; depth],
            iocbs: vec![Iocb::default(); depth],
            queued: Vec::with_capacity(depth),
            events: vec![IoEvent::default(); depth],
            in_flight: 0,
        })
    }

    /// The buffer of `slot`, which must not be in flight.
    pub(crate) fn buffer(&mut self, slot: usize) -> &mut [u8] {
        &mut self.buffers[slot]
    }

    /// Queues a request on the first `len` bytes of the slot's buffer; [`Aio::submit`] sends it.
    pub(crate) fn queue(&mut self, slot: usize, write: bool, offset: u64, len: usize) {
        let buffer = &mut self.buffers[slot];
        assert!(len <= buffer.len(), "a request within its buffer");
        self.iocbs[slot] = Iocb {
            data: slot as u64,
            opcode: if write { PWRITE } else { PREAD },
            fd: self.fd,
            buf: buffer.as_mut_ptr() as u64,
            len: len as u64,
            offset: offset as i64,
            ..Iocb::default()
        };
        self.lens[slot] = len as u64;
        self.queued.push(&raw const self.iocbs[slot]);
    }

    /// Sends what is queued.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.queued.len() {
            let left = &mut self.queued[sent..];
            // SAFETY: the pointers are to `iocbs`, which never grows; each buffer named there lives in `self`
            // and is touched by nobody until its event has come, and Drop waits for all of them.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_io_submit,
                    self.context,
                    left.len() as libc::c_long,
                    left.as_mut_ptr(),
                )
            };
            let accepted = check(result)?;
            sent += accepted;
            self.in_flight += accepted;
        }
        self.queued.clear();
        Ok(())
    }

    /// Waits for at least one request; `done` is told each slot that has finished in full.
    pub(crate) fn wait(&mut self, mut done: impl FnMut(usize)) -> io::Result<()> {
        for at in 0..self.reap()? {
            let IoEvent { data, result, .. } = self.events[at];
            let slot = data as usize;
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result as i32));
            }
            if result as u64 != self.lens[slot] {
                return Err(io::Error::other(format!("{result} of {} bytes", self.lens[slot])));
            }
            done(slot);
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<usize> {
        let room = self.events.len() as libc::c_long;
        // SAFETY: `events` has `room` entries; no time-out is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                1_i64,
                room,
                self.events.as_mut_ptr(),
                std::ptr::null::<u8>(),
            )
        };
        let count = check(result)?;
        self.in_flight -= count;
        Ok(count)
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        while self.in_flight > 0 && self.reap().is_ok() {}
        // SAFETY: the context is ours; io_destroy(2) waits for what is still in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn check(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
