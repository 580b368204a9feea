//! What has to work.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::fs::FallocateFlags;
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};
use xen_virtio_sandbox::{CgroupLimits, Delegated, probe};

use crate::Action;
use crate::call::{args, call};

pub(crate) fn prepare(action: &str, given: &[&str]) -> Option<io::Result<Action>> {
    let first = given.first().copied().unwrap_or_default().to_owned();
    let number: usize = first.parse().unwrap_or_default();
    Some(Ok(match action {
        "image" => match OpenOptions::new().read(true).write(true).open(first) {
            Err(error) => return Some(Err(error)),
            Ok(file) => Box::new(move || image(&file)),
        },
        "write-at" => match OpenOptions::new().write(true).open(first) {
            Err(error) => return Some(Err(error)),
            Ok(file) => {
                // So that a write beyond the limit is an error and not the end.
                // SAFETY: ignoring a signal runs no code.
                unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
                Box::new(move || file.write_at(b"x", 4096).map(|n| n.to_string()))
            }
        },
        "descriptors" => Box::new(move || descriptors(number)),
        "memory" => Box::new(|| Ok(memory())),
        "sockets" => match UnixStream::pair() {
            Err(error) => return Some(Err(error)),
            Ok(pair) => Box::new(move || sockets(&pair)),
        },
        "events" => Box::new(events),
        "watch" => match watched() {
            Err(error) => return Some(Err(error)),
            Ok((group, event)) => Box::new(move || watch(&group, &event)),
        },
        "terminal" => Box::new(|| Ok(io::stdout().is_terminal().to_string())),
        "limit" => Box::new(move || {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let limit = getrlimit(Resource::Nofile);
            let lower = Rlimit { current: Some(64), ..limit };
            let set = (number == 1).then(|| setrlimit(Resource::Nofile, lower));
            set.transpose()?;
            Ok(limit.current.unwrap_or(u64::MAX).to_string())
        }),
        "pin" => Box::new(|| {
            let set = rustix::thread::sched_getaffinity(None)?;
            rustix::thread::sched_setaffinity(None, &set)?;
            Ok("pinned".into())
        }),
        "panic" => Box::new(|| {
            let panicked = thread::spawn(|| panic!("a panic in a thread")).join();
            Ok(panicked.is_err().to_string())
        }),
        "abort" => Box::new(|| std::process::abort()),
        "write" => Box::new(|| {
            let text = b"a line of the log\n";
            io::stderr().write_vectored(&[IoSlice::new(text)]).map(|n| n.to_string())
        }),
        "wait" => Box::new(|| {
            println!("ready");
            io::stdin().read(&mut [0; 1]).map(|n| n.to_string())
        }),
        "cgroup" => Box::new(cgroup),
        "cgroup-memory" => Box::new(|| {
            cgroup()?;
            let taken: Vec<u8> = vec![1; 256 << 20];
            Ok(taken.len().to_string())
        }),
        "privileges" => Box::new(privileges),
        "report" => {
            let expected = probe().to_string();
            Box::new(move || Ok(expected))
        }
        _ => return None,
    }))
}

/// What a queue's thread does with an image.
fn image(mut file: &File) -> io::Result<String> {
    file.write_all_at(b"written", 512)?;
    let slices = [IoSlice::new(b"by "), IoSlice::new(b"parts")];
    pwritev2(file, &slices, 1024, ReadWriteFlags::DSYNC)?;
    let mut read = [0u8; 7];
    file.read_exact_at(&mut read, 512)?;
    let (mut by, mut parts) = ([0u8; 3], [0u8; 5]);
    let mut slices = [IoSliceMut::new(&mut by), IoSliceMut::new(&mut parts)];
    preadv2(file, &mut slices, 1024, ReadWriteFlags::empty())?;
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // Not every file system has it; that it may be asked for is what counts.
    match rustix::fs::fallocate(file, hole, 4096, 4096) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.sync_data()?;
    file.sync_all()?;
    file.set_len(16384)?;
    let end = file.seek(SeekFrom::End(0))?;
    let len = file.metadata()?.len();
    let texts = [&read[..], &by, &parts].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok(format!("{} {len} {end}", texts.join(" ")))
}

fn descriptors(count: usize) -> io::Result<String> {
    let copies: io::Result<Vec<_>> = (0..count)
        .map(|_| Ok(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0)?))
        .collect();
    copies.map(|copies| copies.len().to_string())
}

/// Allocations small and large, grown and given back, from several threads.
fn memory() -> String {
    let work = || {
        let mut grown: Vec<u8> = vec![1; 1 << 20];
        grown.resize(8 << 20, 2);
        grown.truncate(10);
        grown.shrink_to_fit();
        let map: HashMap<usize, String> = (0..1000).map(|i| (i, i.to_string())).collect();
        // Small enough to come from a heap, and enough for that to shrink when they are freed.
        drop((0..256).map(|_| vec![1; 64 << 10]).collect::<Vec<Vec<u8>>>());
        grown.len() + map.len()
    };
    let threads: Vec<_> = (0..8).map(|_| thread::spawn(work)).collect();
    let sum: usize = threads.into_iter().filter_map(|thread| thread.join().ok()).sum();
    sum.to_string()
}

fn sockets((one, other): &(UnixStream, UnixStream)) -> io::Result<String> {
    one.set_nonblocking(true)?;
    let (mut writer, mut reader) = (other, one);
    writer.write_all(b"question")?;
    let mut buffer = [0u8; 8];
    reader.read_exact(&mut buffer)?;
    let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `msghdr` is plain data, of which all-zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = (&raw const iovec).cast_mut();
    message.msg_iovlen = 1;
    let message = &raw const message as usize;
    call(libc::SYS_sendmsg, args([one.as_raw_fd() as usize, message]))?;
    let received = call(libc::SYS_recvmsg, args([other.as_raw_fd() as usize, message]))?;
    Ok(format!("{} {received}", String::from_utf8_lossy(&buffer)))
}

fn events() -> io::Result<String> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let group = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&group, &event, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
    rustix::io::write(&event, &1_u64.to_ne_bytes())?;
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut polled = [PollFd::new(&event, PollFlags::IN)];
    let readable = poll(&mut polled, Some(&second))?;
    let mut ready = Vec::with_capacity(4);
    epoll::wait(&group, rustix::buffer::spare_capacity(&mut ready), Some(&second))?;
    Ok(format!("{readable} {}", ready.len()))
}

fn watched() -> io::Result<(OwnedFd, OwnedFd)> {
    let group = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    Ok((group, eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

/// How a queue's thread waits: by what was made for it before.
fn watch(group: &OwnedFd, event: &OwnedFd) -> io::Result<String> {
    epoll::add(group, event, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
    let mut ready = Vec::with_capacity(4);
    epoll::wait(group, rustix::buffer::spare_capacity(&mut ready), None)?;
    Ok(ready.len().to_string())
}

/// Whether this process, which another one ran, has any privilege.
fn privileges() -> io::Result<String> {
    let sets = rustix::thread::capabilities(None)?;
    match sets.effective.is_empty() && sets.permitted.is_empty() {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => Ok(format!("{:?}", sets.effective)),
    }
}

/// Makes a cgroup within the delegated one that this process is in, and goes there.
fn cgroup() -> io::Result<String> {
    let Some(delegated) = Delegated::find().map_err(io::Error::other)? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let prepared = delegated.prepare().map_err(io::Error::other)?;
    let mut limits = CgroupLimits::default();
    limits.memory = Some(64 << 20);
    let (guest, state) = delegated.guest("guest-1", limits).map_err(io::Error::other)?;
    guest.add(std::process::id()).map_err(io::Error::other)?;
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    Ok(format!("{own} {prepared:?} {state:?}"))
}
