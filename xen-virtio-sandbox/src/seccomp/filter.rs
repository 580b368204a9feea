use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};

use super::kind::ThreadKind;
use super::rules::Rules;
use super::{calls, ioctls};

/// Allowed calls; with rules, only if one of them matches.
type Allowed = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter for one kind of thread. Other calls raise SIGSYS, see [`super::refused`].
pub(super) fn program(kind: ThreadKind, rules: &Rules) -> Result<BpfProgram, BackendError> {
    let (refused, allowed) = (SeccompAction::Trap, allowed(kind, rules)?);
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(allowed, refused, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(if kind == ThreadKind::Guest { [&without_clone3()[..], &program].concat() } else { program })
}

/// Instructions that make `clone3` fail with `ENOSYS`, upon which the C library falls back to `clone`.
/// The flags of `clone3` are in memory, which a filter can't read. It can't be handled by SIGSYS either,
/// as the C library blocks all signals while it starts a thread. The instructions precede the other
/// filter because a filter of their own would cost every system call another 20 ns.
fn without_clone3() -> [sock_filter; 3] {
    let instruction = |code: u32, jf, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
    [
        // `nr`, the first field of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_clone3 as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ]
}

fn allowed(kind: ThreadKind, rules: &Rules) -> Result<Allowed, BackendError> {
    let mut allowed = Allowed::new();
    let mut always = |calls: &[libc::c_long]| {
        allowed.extend(calls.iter().map(|call| (*call, Vec::new())));
    };
    always(calls::EVERY_THREAD);
    let (queue, guest) = match kind {
        ThreadKind::Log => (false, false),
        ThreadKind::SyncQueue | ThreadKind::UringQueue => (true, false),
        ThreadKind::Guest => (true, true),
    };
    if queue {
        always(calls::QUEUE);
    }
    let uring = kind == ThreadKind::UringQueue || guest;
    if uring {
        always(calls::URING);
    }
    if guest {
        always(calls::GUEST);
    }

    // For messages that name a limit: of this process, and without another value for it.
    let no_value = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    if_any(&mut allowed, libc::SYS_prlimit64, vec![vec![arg(0).is(0)?, no_value]])?;
    let pid = std::process::id();
    if_any(&mut allowed, libc::SYS_mmap, vec![[arg(2).lacks(libc::PROT_EXEC)?].into()])?;
    if_any(&mut allowed, libc::SYS_mprotect, vec![[arg(2).lacks(libc::PROT_EXEC)?].into()])?;
    // pthread_kill, raise and abort signal a thread of this process.
    if_any(&mut allowed, libc::SYS_tgkill, vec![[arg(0).is(pid)?].into()])?;
    // abort of musl. The call doesn't name a process; other layers keep it to this one's threads.
    #[cfg(target_env = "musl")]
    if_any(&mut allowed, libc::SYS_tkill, vec![[arg(1).is(libc::SIGABRT as u32)?].into()])?;
    // The handler that logs refused calls must stay.
    let not_sigsys = arg(0).is_not(libc::SIGSYS as u32)?;
    if_any(&mut allowed, libc::SYS_rt_sigaction, vec![[not_sigsys].into()])?;
    let names = [libc::PR_SET_NAME, libc::PR_GET_NAME];
    let mut prctl = one_of(0, &names.map(|option| option as u32))?;
    if guest {
        // For the filters of other threads.
        prctl.push([arg(0).is(libc::PR_SET_NO_NEW_PRIVS as u32)?].into());
        let set = arg(0).is(libc::SECCOMP_SET_MODE_FILTER)?;
        if_any(&mut allowed, libc::SYS_seccomp, vec![[set, arg(1).is(0)?].into()])?;
        let threads = arg(0).masked(calls::CLONE_MASK, calls::CLONE_THREAD)?;
        if_any(&mut allowed, libc::SYS_clone, vec![[threads].into()])?;
    }
    if uring {
        if_any(&mut allowed, libc::SYS_io_uring_register, one_of(1, calls::URING_REGISTER)?)?;
    }
    if_any(&mut allowed, libc::SYS_prctl, prctl)?;
    if_any(&mut allowed, libc::SYS_sched_setaffinity, vec![[arg(0).is(0)?].into()])?;
    // Without an address: to the peer of a connected socket.
    let connected = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    if_any(&mut allowed, libc::SYS_sendto, vec![vec![connected]])?;
    let empty = libc::AT_EMPTY_PATH as u32;
    if_any(&mut allowed, libc::SYS_newfstatat, vec![[arg(3).masked(empty, empty)?].into()])?;
    if_any(&mut allowed, libc::SYS_statx, vec![[arg(2).masked(empty, empty)?].into()])?;
    if queue {
        if_any(&mut allowed, libc::SYS_fcntl, one_of(1, calls::FCNTL)?)?;
        // What each trap takes comes first.
        let mut requests = if guest { ioctls::guest(rules.access) } else { Vec::new() };
        requests.extend(ioctls::queue(rules.access));
        requests.extend(&rules.ioctls);
        if_any(&mut allowed, libc::SYS_ioctl, one_of(1, &requests)?)?;
    }
    // Replaces rules with conditions.
    for call in rules.calls.iter().filter(|_| queue) {
        allowed.insert(*call, Vec::new());
    }
    Ok(allowed)
}

/// Allows `call` if all conditions of one of the groups match.
fn if_any(
    allowed: &mut Allowed,
    call: libc::c_long,
    groups: Vec<Vec<SeccompCondition>>,
) -> Result<(), BackendError> {
    let rules = groups.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?;
    allowed.insert(call, rules);
    Ok(())
}

/// Conditions that an argument is one of these values.
fn one_of(argument: u8, values: &[u32]) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    values.iter().map(|value| Ok(vec![arg(argument).is(*value)?])).collect()
}

fn arg(index: u8) -> Argument {
    Argument(index)
}

/// The low 32 bits of an argument of a call, all that the kernel uses of an `int`.
#[derive(Clone, Copy)]
struct Argument(u8);

impl Argument {
    fn compare(self, op: SeccompCmpOp, value: u32) -> Result<SeccompCondition, BackendError> {
        SeccompCondition::new(self.0, SeccompCmpArgLen::Dword, op, value.into())
    }

    fn is(self, value: u32) -> Result<SeccompCondition, BackendError> {
        self.compare(SeccompCmpOp::Eq, value)
    }

    fn is_not(self, value: u32) -> Result<SeccompCondition, BackendError> {
        self.compare(SeccompCmpOp::Ne, value)
    }

    fn masked(self, mask: u32, value: u32) -> Result<SeccompCondition, BackendError> {
        self.compare(SeccompCmpOp::MaskedEq(mask.into()), value)
    }

    fn lacks(self, bit: libc::c_int) -> Result<SeccompCondition, BackendError> {
        self.masked(bit as u32, 0)
    }
}
