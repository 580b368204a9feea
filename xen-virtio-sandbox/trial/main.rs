//! A process that enters the sandbox, or some layers of it, and then tries one thing.
//!
//! `sandbox-trial LAYERS KIND ACTION [ARGUMENT]…`, with LAYERS `all`, `none` or names with commas
//! between, and KIND the thread's. What an action needs is opened before the sandbox is entered.
//! The exit code is 0 if it succeeded, and 10 if it was refused; a seccomp filter ends the process.
//! Settings come from the environment: `TRIAL_UID`, `TRIAL_FAIL`, `TRIAL_THREADS`, `TRIAL_FILES`,
//! `TRIAL_FSIZE`, `TRIAL_ACCESS`, `TRIAL_NO_MORE`.

mod attempts;
mod call;
mod rings;
mod work;

use std::env;
use std::error::Error;
use std::io;
use std::process::ExitCode;

use xen_virtio_sandbox::{Access, Ids, Layer, Limits, OnRefusal, Sandbox, ThreadKind};

/// What is done once the sandbox is entered.
type Action = Box<dyn FnOnce() -> io::Result<String> + Send>;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(Ok(done)) => {
            println!("done: {done}");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            println!("refused: {error}");
            ExitCode::from(10)
        }
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            eprintln!("trial: {error}{source}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<io::Result<String>, Box<dyn Error>> {
    let [layers, kind, action, args @ ..] = args else {
        return Err("sandbox-trial LAYERS KIND ACTION [ARGUMENT]…".into());
    };
    let action = attempts::prepare(action, args)
        .or_else(|| rings::prepare(action, args))
        .or_else(|| work::prepare(action, args))
        .ok_or_else(|| format!("no action {action}"))??;
    let confined = sandbox(layers).enter()?;
    eprintln!("sandbox: {}", confined.report);
    let kind = match *kind {
        "guest" => return Ok(action()),
        "sync-queue" => ThreadKind::SyncQueue,
        "uring-queue" => ThreadKind::UringQueue,
        "log" => ThreadKind::Log,
        kind => return Err(format!("no kind of thread {kind}").into()),
    };
    let thread = std::thread::Builder::new().name("narrow".into()).spawn(move || {
        confined.filters.apply(kind).map_err(io::Error::other)?;
        action()
    })?;
    Ok(thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))))
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

fn sandbox(layers: &str) -> Sandbox {
    let id = number("TRIAL_UID").filter(|_| rustix::process::geteuid().is_root());
    let ids = id.and_then(|id| Ids::new(id, id).ok());
    let mut limits = Limits::default();
    limits.threads = number("TRIAL_THREADS").or(limits.threads);
    limits.open_files = number("TRIAL_FILES").unwrap_or(limits.open_files);
    limits.file_size = number("TRIAL_FSIZE");
    let access = match env::var("TRIAL_ACCESS").as_deref() {
        Ok("grants") => Access::GRANTS,
        Ok("foreign") => Access::FOREIGN_MEMORY,
        _ => Access::ALL,
    };
    let mut sandbox = Sandbox::new(ids).limits(limits).access(access);
    if env::var_os("TRIAL_FAIL").is_some() {
        sandbox = sandbox.on_refusal(OnRefusal::Fail);
    }
    if env::var_os("TRIAL_NO_MORE").is_some() {
        sandbox = sandbox.descriptors([]);
    }
    let on = |layer: &Layer| layers == "all" || layers.split(',').any(|name| name == layer.name());
    let off = Layer::ALL.into_iter().filter(|layer| !on(layer));
    off.fold(sandbox, Sandbox::without)
}
