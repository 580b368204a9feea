//! What happens to a call that a filter refuses: the kernel raises SIGSYS in the thread that made it.
//!
//! The handler tells the log which call it was, as without the number nobody can tell an attack from
//! a library that has learnt a new call, and then ends the process. As Firecracker does it, and
//! crosvm with the kernel's help: going on with an error would give an attacker further attempts,
//! and a library that can't do without the call would fail later, elsewhere, as an I/O error of the
//! guest's. The supervisor sees a process that SIGSYS ended.

use std::fmt::{self, Write};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::calls;

/// What becomes of a process that makes a system call which it may not make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnRefusal {
    /// It says so in the log and ends, by SIGSYS. A file that is looked for by name is only not
    /// found (`EACCES`), as libraries do that on their own.
    #[default]
    End,
    /// It says so in the log and goes on, the call having failed with `EPERM`: to find what a
    /// library needs, and to count what an attack that is a test is refused.
    Fail,
}

/// [`OnRefusal::Fail`]. A signal handler gets no arguments of ours.
static FAIL: AtomicBool = AtomicBool::new(false);
/// Messages about calls that failed with `EPERM`.
static MESSAGES: AtomicU32 = AtomicU32::new(0);
/// How many of them the log gets.
const MESSAGES_MAX: u32 = 100;
/// Which calls of [`calls::PATHS`] the log has had, a bit each.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// `SYS_SECCOMP` (asm-generic/siginfo.h): the signal is a filter's.
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

/// Handles SIGSYS from here on.
pub(super) fn handle(on_refusal: OnRefusal) -> io::Result<()> {
    FAIL.store(on_refusal == OnRefusal::Fail, Ordering::Relaxed);
    // SAFETY: `sigaction` is plain data, of which all-zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = refused as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: the handler keeps to what a signal handler may do, and `action` outlives the call.
    let result = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs in a thread that made a refused call, at any place of its code: no lock and no allocation.
extern "C" fn refused(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid siginfo_t, as SA_SIGINFO is set; the layout is SIGSYS's.
    let info = unsafe { &*info.cast::<SigSys>() };
    // SAFETY: the kernel hands over a valid ucontext_t, which is this handler's until it returns.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    if info.code != SYS_SECCOMP {
        // Somebody sent the signal; a filter did not.
        end();
    }
    let call = libc::c_long::from(info.syscall);
    let path = calls::PATHS.iter().position(|path| *path == call);
    let (answer, is_told) = match (FAIL.load(Ordering::Relaxed), path) {
        (true, _) => (libc::EPERM, MESSAGES.fetch_add(1, Ordering::Relaxed) >= MESSAGES_MAX),
        (false, Some(index)) => {
            let bit = 1 << index;
            (libc::EACCES, TOLD.fetch_or(bit, Ordering::Relaxed) & bit != 0)
        }
        (false, None) => {
            tell(call, arguments(context), "the process ends");
            end();
        }
    };
    if !is_told {
        tell(
            call,
            arguments(context),
            if answer == libc::EPERM { "EPERM" } else { "EACCES, and so from now on" },
        );
    }
    set_result(context, answer.wrapping_neg().into());
}

/// A line to the standard error.
fn tell(call: libc::c_long, [a, b, c]: [u64; 3], answer: &str) {
    let mut name = [0u8; 16];
    // SAFETY: the kernel stores at most 16 bytes, a NUL among them.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or("?");
    let mut line = Line { text: [0; 256], len: 0 };
    // A line that doesn't fit is cut.
    let _ = writeln!(
        line,
        "sandbox: refused system call {call} ({a:#x}, {b:#x}, {c:#x}, …) of thread {name}: {answer}"
    );
    let mut poll = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // A full pipe that nobody reads isn't waited for longer.
    // SAFETY: one pollfd, which outlives the call.
    if unsafe { libc::poll(&raw mut poll, 1, 1000) } == 1 {
        // SAFETY: the buffer is valid for the length, which is at most its own.
        unsafe { libc::write(libc::STDERR_FILENO, line.text.as_ptr().cast(), line.len) };
    }
}

/// Ends the process by SIGSYS, as the kernel would have without a handler: that is what it does if
/// a filter refuses a call while the signal is blocked. The filter lets nobody change the handler.
fn end() -> ! {
    // SAFETY: a `sigset_t` is plain data, of which all-zero is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` outlives the call.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGSYS) };
    // SAFETY: `set` outlives the call, which stores nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    // SAFETY: takes nothing and changes nothing; it is refused.
    unsafe { libc::syscall(libc::SYS_getuid) };
    // There is no filter: somebody sent the signal.
    // SAFETY: ends the process without running anything of it, as a shell reports SIGSYS.
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
