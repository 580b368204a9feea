//! Handling of SIGSYS, which the kernel raises in a thread that makes a call its filter doesn't allow.
//!
//! The handler logs the call's number and terminates the process. The number is needed to tell an attack
//! from a library that has started to use another call. Returning an error instead would allow an
//! attacker to continue, and would turn a missing entry of the allow-list into unrelated I/O errors.
//! Firecracker does the same; crosvm has the kernel kill and log.

use std::fmt::{self, Write};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::calls;

/// What happens on a system call that isn't allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRefusal {
    /// Log the call and terminate the process by SIGSYS. Path lookups are logged and fail with
    /// `EACCES`, because libraries make them.
    #[default]
    End,
    /// Log the call and fail it with `EPERM`. For tests, and for finding which calls a library
    /// needs.
    Fail,
}

/// Whether [`OnRefusal::Fail`] is configured; a signal handler can't be passed arguments.
static FAIL: AtomicBool = AtomicBool::new(false);
/// Number of calls that failed with `EPERM`.
static MESSAGES: AtomicU32 = AtomicU32::new(0);
/// How many of them are logged.
const MESSAGES_MAX: u32 = 100;
/// Which calls of [`calls::PATHS`] have been logged, one bit each.
static LOGGED: AtomicU32 = AtomicU32::new(0);

/// `SYS_SECCOMP` (asm-generic/siginfo.h): raised by a filter.
const SYS_SECCOMP: libc::c_int = 1;

/// The part of `siginfo_t` that SIGSYS fills in (asm-generic/siginfo.h).
#[repr(C)]
struct SigSys {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    call_addr: *const libc::c_void,
    syscall: libc::c_int,
    arch: libc::c_uint,
}

/// Installs the handler.
pub(super) fn handle(on_refusal: OnRefusal) -> io::Result<()> {
    FAIL.store(on_refusal == OnRefusal::Fail, Ordering::Relaxed);
    // SAFETY: `sigaction` is plain data, of which all-zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = refused as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: the handler is async-signal-safe, and `action` outlives the call.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The handler. It must be async-signal-safe: no locks, no allocation.
extern "C" fn refused(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid siginfo_t, as SA_SIGINFO is set; the layout is SIGSYS's.
    let info = unsafe { &*info.cast::<SigSys>() };
    // SAFETY: the kernel hands over a valid ucontext_t, which is this handler's until it returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    if info.code != SYS_SECCOMP {
        // Sent by a process.
        end();
    }
    let call = libc::c_long::from(info.syscall);
    let path = calls::PATHS.iter().position(|path| *path == call);
    let (answer, is_logged) = match (FAIL.load(Ordering::Relaxed), path) {
        (true, _) => (libc::EPERM, MESSAGES.fetch_add(1, Ordering::Relaxed) >= MESSAGES_MAX),
        (false, Some(index)) => {
            let bit = 1 << index;
            (libc::EACCES, LOGGED.fetch_or(bit, Ordering::Relaxed) & bit != 0)
        }
        (false, None) => {
            log(call, arguments(context), "process terminated");
            end();
        }
    };
    if !is_logged {
        log(
            call,
            arguments(context),
            if answer == libc::EPERM { "EPERM" } else { "EACCES (logged once)" },
        );
    }
    set_result(context, answer.wrapping_neg().into());
}

/// Writes a line to the standard error.
fn log(call: libc::c_long, [a, b, c]: [u64; 3], answer: &str) {
    let mut name = [0u8; 16];
    // SAFETY: the kernel stores at most 16 bytes, a NUL among them.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or("?");
    let mut line = Line { text: [0; 256], len: 0 };
    // Truncated if it doesn't fit.
    let _ = writeln!(
        line,
        "sandbox: system call {call} ({a:#x}, {b:#x}, {c:#x}, …) of thread {name} not allowed: {answer}"
    );
    let mut poll = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // Don't block for longer on a pipe that nobody reads.
    // SAFETY: one pollfd, which outlives the call.
    if unsafe { libc::poll(&raw mut poll, 1, 1000) } == 1 {
        // SAFETY: the buffer is valid for the length, which is at most its own.
        unsafe { libc::write(libc::STDERR_FILENO, line.text.as_ptr().cast(), line.len) };
    }
}

/// Terminates the process by SIGSYS. The filter doesn't allow resetting the handler, but if the signal
/// is blocked when a call isn't allowed, the kernel terminates the process.
fn end() -> ! {
    // SAFETY: a `sigset_t` is plain data, of which all-zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` outlives the call.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGSYS) };
    // SAFETY: `set` outlives the call, which stores nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: takes no arguments. The call isn't allowed.
    unsafe { libc::syscall(libc::SYS_getuid) };
    // Reached if there is no filter. The exit code is the one that a shell reports for SIGSYS.
    // SAFETY: exits without running destructors.
    unsafe { libc::_exit(128 + libc::SIGSYS) }
}

#[cfg(target_arch = "x86_64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 3] {
    [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX]
        .map(|register| context.uc_mcontext.gregs[register as usize] as u64)
}

#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t, result: i64) {
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result;
}

#[cfg(target_arch = "aarch64")]
fn arguments(context: &libc::ucontext_t) -> [u64; 3] {
    let [a, b, c, ..] = context.uc_mcontext.regs;
    [a, b, c]
}

#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t, result: i64) {
    context.uc_mcontext.regs[0] = result as u64;
}

/// Text on the stack.
struct Line {
    text: [u8; 256],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.text[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
