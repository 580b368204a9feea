//! What the seccomp filters allow, and what happens on other calls.

mod common;

use common::{Outcome, Trial, has, refused};
use xen_virtio_sandbox::Layer::Seccomp;

#[test]
fn a_call_that_is_not_allowed_terminates_the_process_and_is_logged() {
    if !has(Seccomp) {
        return;
    }
    let (outcome, log) = Trial::new("seccomp", "ring-setup").run();
    assert_eq!(outcome, Outcome::Signal(libc::SIGSYS), "{log}");
    let says = format!("sandbox: system call {} (0x8, ", libc::SYS_io_uring_setup);
    assert!(log.contains(&says), "{log}");
    assert!(
        log.trim_end().ends_with("of thread sandbox-trial not allowed: process terminated"),
        "{log}"
    );
}

#[test]
fn a_call_of_a_queue_thread_that_is_not_allowed_terminates_the_process() {
    if !has(Seccomp) {
        return;
    }
    let (outcome, log) = Trial::of_thread("sync-queue", "seccomp", "ring-setup").run();
    assert_eq!(outcome, Outcome::Signal(libc::SIGSYS), "{log}");
    assert!(log.contains("of thread narrow not allowed: process terminated"), "{log}");
}

#[test]
fn a_path_lookup_fails_and_does_not_terminate_the_process() {
    if !has(Seccomp) {
        return;
    }
    let (outcome, log) = Trial::new("seccomp", "open /dev/null").run();
    assert_eq!(outcome, Outcome::Refused("Permission denied (os error 13)".into()), "{log}");
    let says = format!("system call {} ", libc::SYS_openat);
    assert_eq!(log.matches(&says).count(), 1, "{log}");
    // Many threads do so, but it is logged once.
    let (outcome, log) = Trial::new("seccomp", "threads 20").run();
    assert_eq!(outcome, Outcome::Done("20".into()), "{log}");
    assert!(log.matches(&says).count() <= 1, "{log}");
}

#[test]
fn a_call_that_is_not_allowed_fails_and_is_logged_if_so_configured() {
    if !has(Seccomp) {
        return;
    }
    let (outcome, log) = Trial::new("seccomp", "ring-setup").env("TRIAL_FAIL", 1).run();
    assert_eq!(outcome, Outcome::Refused("Operation not permitted (os error 1)".into()), "{log}");
    assert!(log.trim_end().ends_with("of thread sandbox-trial not allowed: EPERM"), "{log}");
}

#[test]
fn the_handler_that_logs_cannot_be_replaced() {
    if !has(Seccomp) {
        return;
    }
    refused(&[], "sigsys", &[Seccomp], |trial| trial);
}

#[test]
fn system_calls_that_are_not_needed_are_not_allowed() {
    if !has(Seccomp) {
        return;
    }
    let calls = [
        libc::SYS_acct,
        libc::SYS_add_key,
        libc::SYS_adjtimex,
        libc::SYS_bind,
        libc::SYS_bpf,
        libc::SYS_capset,
        libc::SYS_chdir,
        libc::SYS_chroot,
        libc::SYS_clock_settime,
        libc::SYS_connect,
        libc::SYS_delete_module,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fanotify_init,
        libc::SYS_fchmod,
        libc::SYS_fchown,
        libc::SYS_finit_module,
        libc::SYS_flock,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_init_module,
        libc::SYS_inotify_init1,
        libc::SYS_io_setup,
        libc::SYS_io_uring_setup,
        libc::SYS_kcmp,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_kill,
        libc::SYS_landlock_create_ruleset,
        libc::SYS_linkat,
        libc::SYS_listen,
        libc::SYS_mbind,
        libc::SYS_memfd_create,
        libc::SYS_mkdirat,
        libc::SYS_mlock,
        libc::SYS_mlockall,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_mq_open,
        libc::SYS_msgget,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_openat2,
        libc::SYS_perf_event_open,
        libc::SYS_personality,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_pivot_root,
        libc::SYS_pkey_mprotect,
        libc::SYS_process_madvise,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_quotactl,
        libc::SYS_reboot,
        libc::SYS_remap_file_pages,
        libc::SYS_renameat2,
        libc::SYS_request_key,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_semget,
        libc::SYS_setdomainname,
        libc::SYS_setgid,
        libc::SYS_setgroups,
        libc::SYS_sethostname,
        libc::SYS_setns,
        libc::SYS_setpgid,
        libc::SYS_setresgid,
        libc::SYS_setresuid,
        libc::SYS_setsid,
        libc::SYS_setsockopt,
        libc::SYS_settimeofday,
        libc::SYS_setuid,
        libc::SYS_shmat,
        libc::SYS_shmget,
        libc::SYS_signalfd4,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_splice,
        libc::SYS_swapon,
        libc::SYS_symlinkat,
        libc::SYS_syslog,
        libc::SYS_timer_create,
        libc::SYS_tkill,
        libc::SYS_umount2,
        libc::SYS_unlinkat,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
        libc::SYS_vmsplice,
        libc::SYS_wait4,
    ];
    let all = calls.map(|call| call.to_string()).join(" ");
    let (outcome, log) = Trial::new("seccomp", &format!("calls {all}")).env("TRIAL_FAIL", 1).run();
    assert_eq!(outcome, Outcome::Done(format!("{} refused", calls.len())), "{log}");
    for call in calls {
        assert!(log.contains(&format!("system call {call} ")), "{call} isn't refused:\n{log}");
    }
}

/// Numbers of `include/uapi/xen/privcmd.h`, `gntdev.h` and `evtchn.h`.
const HYPERCALL: u32 = 0x0030_5000;
const MMAPBATCH_V2: u32 = 0x0020_5004;
const DM_OP: u32 = 0x0010_5005;
const PRIVCMD_RESTRICT: u32 = 0x0002_5006;
const MMAP_RESOURCE: u32 = 0x0020_5007;
const IRQFD: u32 = 0x4018_5008;
const MAP_GRANT_REF: u32 = 0x0018_4700;
const GRANT_COPY: u32 = 0x0010_4708;
const BIND_VIRQ: u32 = 0x0004_4500;
const BIND_INTERDOMAIN: u32 = 0x0008_4501;
const BIND_UNBOUND_PORT: u32 = 0x0004_4502;
const NOTIFY: u32 = 0x0004_4504;

fn ioctl_passes(kind: &str, access: &str, request: u32) -> bool {
    let trial = Trial::of_thread(kind, "seccomp", &format!("ioctl {request}"));
    let (outcome, log) = trial.env("TRIAL_ACCESS", access).run();
    match outcome {
        Outcome::Done(_) => true,
        Outcome::Signal(libc::SIGSYS) => {
            assert!(log.contains(&format!("{request:#x}, ")), "the log names the ioctl: {log}");
            false
        }
        outcome => panic!("{outcome:?}\n{log}"),
    }
}

#[test]
fn ioctls_that_are_not_needed_are_not_allowed() {
    if !has(Seccomp) {
        return;
    }
    // TIOCSTI, FIBMAP, and hypercalls.
    for request in [0x5412, 1, HYPERCALL, PRIVCMD_RESTRICT, BIND_VIRQ, BIND_UNBOUND_PORT] {
        refused(&[], &format!("ioctl {request}"), &[Seccomp], |trial| trial);
    }
    for request in [DM_OP, MMAP_RESOURCE, BIND_INTERDOMAIN, NOTIFY] {
        assert!(ioctl_passes("guest", "foreign", request), "{request:#x}");
    }
}

#[test]
fn a_queue_thread_may_not_use_ioctls_of_event_channels_and_resources() {
    if !has(Seccomp) {
        return;
    }
    for kind in ["sync-queue", "uring-queue"] {
        assert!(ioctl_passes(kind, "all", DM_OP));
        assert!(ioctl_passes(kind, "all", MMAPBATCH_V2));
        for request in [MMAP_RESOURCE, BIND_INTERDOMAIN, NOTIFY, IRQFD] {
            assert!(!ioctl_passes(kind, "all", request), "{kind} {request:#x}");
        }
    }
    assert!(!ioctl_passes("log", "all", DM_OP));
}

#[test]
fn the_process_of_a_guest_with_grants_may_not_map_foreign_memory() {
    if !has(Seccomp) {
        return;
    }
    let passes = |access| {
        [MMAPBATCH_V2, MAP_GRANT_REF, GRANT_COPY, IRQFD]
            .map(|request| ioctl_passes("guest", access, request))
    };
    assert_eq!(passes("grants"), [false, true, true, false]);
    assert_eq!(passes("foreign"), [true, false, false, false]);
    assert_eq!(passes("all"), [true; 4]);
}
