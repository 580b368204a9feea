//! Lists of system calls, from the sources of glibc, musl and Rust's standard library, and from traces
//! (strace) of the programs' tests.

use libc::c_long;

/// For all threads: starting, running and exiting. These calls affect only the process's own memory
/// and open descriptors.
pub(super) const EVERY_THREAD: &[c_long] = &[
    // Eventfds, sockets, the log.
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
    // Memory. mmap and mprotect are allowed without PROT_EXEC, see the filter.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Synchronization and time.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // Signal handling.
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sigaltstack,
    // Thread start: the first two by glibc, the third by musl.
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_membarrier,
    // pthread_getattr_np, by which the standard library finds a new thread's stack.
    libc::SYS_sched_getaffinity,
    // Keys of hash tables and of the heap.
    libc::SYS_getrandom,
    // How often a thread that polls was preempted.
    libc::SYS_getrusage,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// For serving a queue: waiting for its doorbell and its engine, and I/O on open files.
pub(super) const QUEUE: &[c_long] = &[
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
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

/// For an existing io_uring.
pub(super) const URING: &[c_long] = &[libc::SYS_io_uring_enter];

/// For the guest's main thread.
pub(super) const GUEST: &[c_long] = &[
    // Connections of supervisors.
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_shutdown,
    // Events and timers.
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_epoll_create1,
];

/// Commands of fcntl(2): flags, duplicates, and locks of open file descriptions.
pub(super) const FCNTL: &[u32] = &[
    libc::F_GETFL as u32,
    libc::F_SETFL as u32,
    libc::F_GETFD as u32,
    libc::F_SETFD as u32,
    libc::F_DUPFD_CLOEXEC as u32,
    libc::F_OFD_GETLK as u32,
    libc::F_OFD_SETLK as u32,
];

/// Operations of io_uring_register(2) (linux/io_uring.h): `IORING_REGISTER_FILES_UPDATE`, which gives an
/// existing ring its file, see [`RingRestrictions`](crate::RingRestrictions). A queue's thread takes the file
/// away when it drops its engine.
pub(super) const URING_REGISTER: &[u32] = &[6];

/// The flags of clone(2) that create a thread.
pub(super) const CLONE_THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD) as u32;

/// The flags that are checked: these, which must be set, and others, which must not.
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

/// Path lookups. They fail with `EACCES` instead of terminating the process, because libraries make
/// them and can cope with failure: a panic's backtrace looks for symbols.
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
