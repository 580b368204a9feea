//! Runs `sandbox-trial`, the process that enters the sandbox.

#![allow(dead_code, reason = "each test file has a copy of its own")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use xen_virtio_sandbox::{Layer, State, probe};

pub(crate) const TRIAL: &str = env!("CARGO_BIN_EXE_sandbox-trial");

/// What became of what the process tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(String),
    Refused(String),
    /// Ended by a signal; the filter's is SIGSYS.
    Signal(i32),
    /// It didn't come to trying.
    Failed,
}

impl Outcome {
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Signal(libc::SIGSYS))
    }
}

/// One run.
pub(crate) struct Trial {
    command: Command,
}

impl Trial {
    /// `layers` as the program takes them. The user is one that no other test has.
    pub(crate) fn new(layers: &str, action: &str) -> Self {
        Self::of_thread("guest", layers, action)
    }

    pub(crate) fn of_thread(kind: &str, layers: &str, action: &str) -> Self {
        let mut command = Command::new(TRIAL);
        command.args([layers, kind]).args(action.split(' ').filter(|arg| !arg.is_empty()));
        command.env("TRIAL_UID", uid().to_string());
        let close = || {
            // Who runs the tests may have left some open.
            // SAFETY: marks descriptors, and closes none that this process uses.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
            Ok(())
        };
        // SAFETY: the closure makes a system call, and allocates nothing.
        unsafe { command.pre_exec(close) };
        Self { command }
    }

    /// Another copy of the program, that another user runs.
    pub(crate) fn of_user(id: u32, program: &Path, layers: &str, action: &str) -> Self {
        let mut command = Command::new(program);
        command.args([layers, "guest"]).args(action.split(' ')).uid(id).gid(id);
        Self { command }
    }

    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.command.env(name, value.to_string());
        self
    }

    /// Lowers the hard limit of open files before it runs.
    pub(crate) fn files(mut self, limit: u64) -> Self {
        let lower = move || {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: the limit outlives the call.
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            Ok(())
        };
        // SAFETY: the closure makes a system call, and allocates nothing.
        unsafe { self.command.pre_exec(lower) };
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Runs it to its end: the outcome, and what it wrote to the log.
    pub(crate) fn run(mut self) -> (Outcome, String) {
        let Output { status, stdout, stderr } = self.command.output().expect("the trial program");
        let (stdout, stderr) = (text(&stdout), text(&stderr));
        let said = |prefix| {
            let line = stdout.lines().find_map(|line| line.strip_prefix(prefix));
            line.unwrap_or_default().to_owned()
        };
        let outcome = match (status.code(), status.signal()) {
            (Some(0), _) => Outcome::Done(said("done: ")),
            (Some(10), _) => Outcome::Refused(said("refused: ")),
            (_, Some(signal)) => Outcome::Signal(signal),
            _ => Outcome::Failed,
        };
        (outcome, stderr)
    }

    pub(crate) fn outcome(self) -> Outcome {
        self.run().0
    }

    /// Starts it and leaves it running.
    pub(crate) fn spawn(mut self) -> Neighbour {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = self.command.spawn().expect("the trial program");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)
            .expect("a line");
        assert_eq!(line, "ready\n");
        Neighbour(child)
    }
}

/// A process that ends with its test.
pub(crate) struct Neighbour(pub(crate) Child);

impl Neighbour {
    /// One of another user, that does nothing.
    pub(crate) fn new() -> Self {
        let mut command = Command::new("sleep");
        let id = uid();
        Self(command.arg("1000").uid(id).gid(id).spawn().expect("sleep"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ID that no user has.
pub(crate) fn uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    0x5000_0000 + (std::process::id() % 0x10_0000) * 0x100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether the tests run as root, without whom most layers can't be entered.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: it takes root");
    }
    root
}

/// Whether the kernel has a layer.
pub(crate) fn has(layer: Layer) -> bool {
    let has = !matches!(probe().state(layer), Some(State::Missing(_)));
    if !has {
        eprintln!("SKIPPED: this kernel has no {layer}");
    }
    has
}

/// A directory that everybody may enter.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), permissions).expect("its permissions");
    directory
}

/// The version of Landlock's interface, 0 for none.
pub(crate) fn landlock_abi() -> i64 {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: asked for its version, the call takes no memory.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, 1) }.max(0)
}

/// That an attempt succeeds with the layers `base`, which is what makes the rest mean something; is
/// refused by each layer of `alone` added to them; and by all of them.
pub(crate) fn refused(
    base: &[Layer],
    attempt: &str,
    alone: &[Layer],
    with: impl Fn(Trial) -> Trial,
) {
    let names = |layers: &[Layer]| match layers {
        [] => "none".to_owned(),
        layers => layers.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(","),
    };
    let run = |layers: &str| with(Trial::new(layers, attempt)).run();
    let (outcome, log) = run(&names(base));
    assert!(matches!(outcome, Outcome::Done(_)), "{attempt}, unconfined: {outcome:?}\n{log}");
    let mut there = 0;
    for layer in alone {
        let layers = [base, &[*layer]].concat();
        let (outcome, log) = run(&names(&layers));
        if log.contains(&format!("{layer} is MISSING")) {
            eprintln!("SKIPPED: {attempt} against {layer}, which this kernel lacks");
            continue;
        }
        there += 1;
        assert!(outcome.is_refused(), "{attempt}, {layer} alone: {outcome:?}\n{log}");
    }
    if there == 0 {
        return;
    }
    let (outcome, log) = run("all");
    assert!(outcome.is_refused(), "{attempt}, confined: {outcome:?}\n{log}");
}
