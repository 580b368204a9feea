//! `hostile`: drives a virtio-blk device as no driver may, through /dev/mem.
//!
//! `run` starts a process for each action, and after it a process that is an ordinary driver and
//! reads what it had written at the beginning. It fails if an action finds the device answering
//! otherwise than virtio 1.2 lets it, or if the ordinary driver doesn't find its data.

mod action;
mod blk;
mod chains;
mod check;
mod config;
mod features;
mod groups;
mod indirect;
mod memory;
mod placement;
mod race;
mod read_only;
mod reg;
mod registers;
mod rig;
mod state;
mod window;

use anyhow::{Context as _, Result, bail};
use check::{ensure, same};
use clap::{Parser, Subcommand};
use groups::READ_ONLY;
use reg::{BLK_RO, IN, OK, OUT};
use rig::{DATA_AT, Rig};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long an action, or the ordinary driver after it, may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Sectors that hold the pattern; actions that write do so elsewhere.
const KEPT: u32 = 8;

/// Drives a virtio-blk device as no driver may.
#[derive(Parser)]
struct Cli {
    /// The physical address of the window; its driver must be unbound.
    #[arg(long, global = true, default_value = "0x2000000", value_parser = address)]
    base: u64,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Names the actions.
    List,
    /// Runs these groups' actions, or those for a writable disk, each in a process of its own.
    Run { groups: Vec<String> },
    /// Runs one action.
    Action { name: String },
    /// An ordinary driver: writes the data that `read` looks for.
    Write,
    /// An ordinary driver: finds the data that `write` wrote.
    Read,
}

fn address(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let Cli { base, command } = Cli::parse();
    let result = match command {
        What::List => {
            for action in groups::all().actions {
                println!("{:<10} {:<11} {}", action.group, action.clause, action.name);
            }
            Ok(())
        }
        What::Run { groups } => run(base, &groups),
        What::Action { name } => action(base, &name),
        What::Write => pattern(base, OUT),
        What::Read => pattern(base, IN),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn action(base: u64, name: &str) -> Result<()> {
    let table = groups::all();
    let action = table.actions.iter().find(|action| action.name == name);
    action.with_context(|| format!("no action {name}"))?.run(&mut Rig::open(base)?)
}

/// Writes the kept sectors, or reads and compares them.
fn pattern(base: u64, kind: u32) -> Result<()> {
    let mut rig = Rig::open(base)?;
    rig.up(&[])?;
    let len = KEPT * 512;
    let wanted: Vec<u8> = (0..len).map(|at| (at / 512 * 37 + at % 251) as u8).collect();
    if kind == OUT {
        rig.memory.fill(DATA_AT, &wanted);
    }
    let data = rig.data(len, kind == IN);
    same("the status of the ordinary driver's request", rig.request(kind, 0, &[data])?, OK)?;
    // Nobody could write to a read-only disk.
    let found = rig.memory.bytes(DATA_AT, len as usize);
    let right = found == wanted || rig.has(BLK_RO) && found.iter().all(|byte| *byte == 0);
    ensure(right, || "the ordinary driver's data has changed".to_owned())
}

fn run(base: u64, groups: &[String]) -> Result<()> {
    let (mut count, mut failed) = (0, 0);
    let actions = groups::all().actions;
    if let Some(unknown) = groups.iter().find(|g| actions.iter().all(|a| a.group != *g)) {
        bail!("no group {unknown}");
    }
    let chosen = |group| match groups {
        [] => group != READ_ONLY,
        names => names.iter().any(|name| name == group),
    };
    let mut group = "";
    for action in actions.iter().filter(|action| chosen(action.group)) {
        if group != action.group {
            group = action.group;
            println!("%% hostile group {group}");
        }
        count += 1;
        let acted = child(base, &["action", &action.name]);
        let served = child(base, &["read"]).context("the ordinary driver after it");
        if let Err(error) = acted.and(served) {
            failed += 1;
            println!("%% hostile failed {} ({}): {error:#}", action.name, action.clause);
        }
    }
    println!("%% hostile actions={count} failed={failed}");
    ensure(failed == 0, || format!("{failed} actions failed"))
}

/// Runs this program and waits for its end, but not for ever.
fn child(base: u64, arguments: &[&str]) -> Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .args(arguments)
        .arg(format!("--base={base:#x}"))
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a process")?;
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if since.elapsed() > TIME_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s", TIME_LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut said)?;
    }
    bail!("{} ({status})", said.trim_end().replace('\n', "; "))
}
