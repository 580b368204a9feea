//! What has to be refused.

use std::fs::File;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libc::c_long;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::Action;
use crate::call::{AT_FDCWD, args, call, path};

/// `KEYCTL_JOIN_SESSION_KEYRING` and `KEYCTL_SEARCH` (linux/keyctl.h), and the session's keyring.
const KEYCTL_JOIN: usize = 1;
const KEYCTL_SEARCH: usize = 10;
const SESSION: usize = -3_isize as usize;

fn done(result: io::Result<i64>) -> io::Result<String> {
    result.map(|value| value.to_string())
}

/// That a call got as far as to fail for `errno` is success enough.
fn reached(errno: i32, result: io::Result<i64>) -> io::Result<String> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(format!("reached: {error}")),
        result => done(result),
    }
}

fn open(name: usize, flags: i32) -> io::Result<String> {
    done(call(libc::SYS_openat, args([AT_FDCWD, name, flags as usize, 0o600])))
}

pub(crate) fn prepare(action: &str, given: &[&str]) -> Option<io::Result<Action>> {
    let first = given.first().copied().unwrap_or_default().to_owned();
    let number: usize = first.parse().unwrap_or_default();
    let name = path(&first);
    let action: Action = match action {
        "open" => Box::new(move || open(name, libc::O_RDONLY)),
        "create" => Box::new(move || open(name, libc::O_CREAT | libc::O_WRONLY)),
        "walk-up" => Box::new(move || {
            for _ in 0..20 {
                call(libc::SYS_chdir, args([path("..")]))?;
            }
            open(name, libc::O_RDONLY)
        }),
        "chroot" => Box::new(|| done(call(libc::SYS_chroot, args([path("/")])))),
        "tcp" => Box::new(move || TcpStream::connect(first.as_str()).map(|_| "connected".into())),
        "udp" => Box::new(move || {
            let sent = UdpSocket::bind("0.0.0.0:0")?.send_to(b"trial", first.as_str())?;
            Ok(sent.to_string())
        }),
        "unix" => Box::new(move || UnixStream::connect(&first).map(|_| "connected".into())),
        "abstract" => Box::new(move || {
            let address = SocketAddr::from_abstract_name(first.as_bytes())?;
            UnixStream::connect_addr(&address).map(|_| "connected".into())
        }),
        "exec" => Box::new(move || {
            let argv = [name, path("none"), path("guest"), path("privileges"), 0];
            let environment = [0_usize];
            let arguments = args([name, argv.as_ptr() as usize, environment.as_ptr() as usize]);
            done(call(libc::SYS_execve, arguments))
        }),
        "threads" => Box::new(move || threads(number)),
        "fork" => Box::new(|| match call(libc::SYS_clone, args([libc::SIGCHLD as usize]))? {
            0 => std::process::exit(0),
            child => Ok(child.to_string()),
        }),
        "clone3" => Box::new(|| reached(libc::EINVAL, call(libc::SYS_clone3, args([0, 0])))),
        "ptrace" => Box::new(move || {
            const PTRACE_SEIZE: usize = 0x4206;
            done(call(libc::SYS_ptrace, args([PTRACE_SEIZE, number])))
        }),
        "kill" => Box::new(move || done(call(libc::SYS_kill, args([number, 0])))),
        "tgkill" => Box::new(move || done(call(libc::SYS_tgkill, args([number, number, 0])))),
        "read-memory" => Box::new(move || {
            let mut buffer = [0u8; 8];
            let local = [buffer.as_mut_ptr() as usize, buffer.len()];
            let remote = [0_usize, buffer.len()];
            let (local, remote) = (local.as_ptr() as usize, remote.as_ptr() as usize);
            let read = call(libc::SYS_process_vm_readv, [number, local, 1, remote, 1, 0]);
            reached(libc::EFAULT, read)
        }),
        "unshare" => Box::new(|| done(call(libc::SYS_unshare, args([libc::CLONE_NEWNS as usize])))),
        "unshare-user" => {
            Box::new(|| done(call(libc::SYS_unshare, args([libc::CLONE_NEWUSER as usize]))))
        }
        "mount" => match private_mounts() {
            Err(error) => return Some(Err(error)),
            Ok(()) => Box::new(|| {
                let (none, root, tmpfs) = (path("none"), path("/"), path("tmpfs"));
                done(call(libc::SYS_mount, args([none, root, tmpfs, 0, 0])))
            }),
        },
        "host-name" => match own_host_name() {
            Err(error) => return Some(Err(error)),
            Ok(()) => Box::new(|| done(call(libc::SYS_sethostname, args([path("trial"), 5])))),
        },
        "become-root" => Box::new(|| done(call(libc::SYS_setresuid, args([0, 0, 0])))),
        "join-group" => Box::new(|| {
            let groups = [0u32];
            done(call(libc::SYS_setgroups, args([1, groups.as_ptr() as usize])))
        }),
        "execute-memory" => {
            Box::new(|| done(map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, None)))
        }
        "make-executable" => Box::new(|| {
            let address = map(libc::PROT_READ | libc::PROT_WRITE, None)?;
            let protection = (libc::PROT_READ | libc::PROT_EXEC) as usize;
            done(call(libc::SYS_mprotect, args([address as usize, 4096, protection])))
        }),
        "execute-file" => match File::open(&first) {
            Err(error) => return Some(Err(error)),
            Ok(file) => Box::new(move || done(map(libc::PROT_READ | libc::PROT_EXEC, Some(&file)))),
        },
        "ioctl" => match File::open("/dev/null") {
            Err(error) => return Some(Err(error)),
            Ok(file) => Box::new(move || {
                let fd = file.as_raw_fd() as usize;
                reached(libc::ENOTTY, call(libc::SYS_ioctl, args([fd, number])))
            }),
        },
        "key" => match key() {
            Err(error) => return Some(Err(error)),
            Ok(()) => Box::new(|| {
                let search = [KEYCTL_SEARCH, SESSION, path("user"), path("trial")];
                done(call(libc::SYS_keyctl, args(search)))
            }),
        },
        "sigsys" => Box::new(|| {
            let ignore = [0_usize; 4];
            let sigaction = [libc::SIGSYS as usize, ignore.as_ptr() as usize, 0, 8];
            done(call(libc::SYS_rt_sigaction, args(sigaction)))
        }),
        "calls" => {
            let numbers: Vec<c_long> = given.iter().filter_map(|n| n.parse().ok()).collect();
            Box::new(move || {
                let refused = |n: &&c_long| {
                    let result = call(**n, [0; 6]);
                    matches!(result, Err(error) if error.raw_os_error() == Some(libc::EPERM))
                };
                Ok(format!("{} refused", numbers.iter().filter(refused).count()))
            })
        }
        _ => return None,
    };
    Some(Ok(action))
}

fn map(protection: i32, file: Option<&File>) -> io::Result<i64> {
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_PRIVATE, file.as_raw_fd() as usize),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1_isize as usize),
    };
    call(libc::SYS_mmap, [0, 4096, protection as usize, flags as usize, fd, 0])
}

/// So that what succeeds disturbs nobody.
fn private_mounts() -> io::Result<()> {
    // SAFETY: the table of descriptors stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
}

fn own_host_name() -> io::Result<()> {
    // SAFETY: the table of descriptors stays shared.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWUTS) }?)
}

/// A key in the session's keyring, which is this process's own as well.
fn key() -> io::Result<()> {
    call(libc::SYS_keyctl, args([KEYCTL_JOIN, 0]))?;
    let payload = path("secret");
    let key = [path("user"), path("trial"), payload, 6, SESSION];
    call(libc::SYS_add_key, args(key)).map(drop)
}

/// So many at once.
fn threads(count: usize) -> io::Result<String> {
    let shared = Arc::new((Mutex::new(0), Condvar::new()));
    let start = |i| {
        let shared = Arc::clone(&shared);
        let body = move || {
            *shared.0.lock().unwrap_or_else(|e| e.into_inner()) += 1;
            shared.1.notify_all();
            let begin = Instant::now();
            thread::sleep(Duration::from_millis(1));
            thread::yield_now();
            assert!(begin.elapsed() >= Duration::from_millis(1));
            let mut counted = shared.0.lock().unwrap_or_else(|e| e.into_inner());
            while *counted < count {
                counted = shared.1.wait(counted).unwrap_or_else(|e| e.into_inner());
            }
        };
        thread::Builder::new().name(format!("thread-{i}")).spawn(body)
    };
    let mut started = Vec::new();
    for i in 0..count {
        match start(i) {
            Ok(thread) => started.push(thread),
            Err(error) => {
                // So that those which wait for it end.
                *shared.0.lock().unwrap_or_else(|e| e.into_inner()) = count;
                shared.1.notify_all();
                return Err(error);
            }
        }
    }
    let joined = started.into_iter().map(thread::JoinHandle::join).filter(Result::is_ok).count();
    Ok(joined.to_string())
}
