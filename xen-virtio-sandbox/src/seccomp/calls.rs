//! The lists. Who makes each call was read from the sources of the C libraries (glibc, musl) and
//! Rust's standard library, and seen by strace in the programs' tests.

use libc::c_long;

/// What any thread may do, to live and die: nothing here reaches beyond the process's memory and
/// the descriptors that are open.
pub(super) const EVERY_THREAD: &[c_long] = &[
    // Descriptors that are open: events, sockets, the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_close,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_fstat,
    // Memory; mmap and mprotect without PROT_EXEC.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Waiting for other threads, and time.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // Signals: a handler's return, and what starts and ends a thread.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    // The C library's thread start: glibc registers the first two, musl the third.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_membarrier,
    // Whoever asks for a thread's stack, as the standard library does at its start, is told its CPUs.
    libc::SYS_sched_getaffinity,
    // Its keys of hash tables and heap.
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What serving a queue takes: I/O at given offsets of files that are open.
pub(super) const QUEUE: &[c_long] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
];

/// What a ring takes that exists.
pub(super) const URING: &[c_long] = &[libc::SYS_io_uring_enter];

/// What the thread takes that runs the others.
pub(super) const GUEST: &[c_long] = &[
    // The supervisor's connection, and the next supervisor's.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // Events of its own making.
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// Of fcntl(2): a description's flags, copies, and locks of open file descriptions.
pub(super) const FCNTL: &[u32] = &[
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_OFD_GETLK as u32,
    libc::F_OFD_SETLK as u32,
];

/// Of io_uring_register(2) (linux/io_uring.h): `IORING_REGISTER_FILES` and `_ENABLE_RINGS`, by which
/// a ring that was made in time gets its file and begins to work. What it may do then is its own
/// matter, see [`RingRestrictions`](crate::RingRestrictions).
pub(super) const URING_REGISTER: &[u32] = &[2, 12];

/// The flags of clone(2) that make a thread of a process, and nothing else of anything.
pub(super) const CLONE_THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD) as u32;

/// The flags that are looked at: these, and those that must not be there.
pub(super) const CLONE_MASK: u32 = CLONE_THREAD
    | (libc::CLONE_VFORK
        | libc::CLONE_PTRACE
        | libc::CLONE_PIDFD
        | libc::CLONE_UNTRACED
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET) as u32;

/// Calls that libraries make on their own and do without: files looked for by name. They are
/// answered with `EACCES`, where any other refused call ends the process. A panic's backtrace looks
/// for the program's symbols, an allocator for the number of CPUs.
pub(super) const PATHS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];
