//! `cargo xtask compare`: our block device beside its peers and the limit, driven by one driver.

mod cell;
mod client;
mod cpu;
mod facts;
mod image;
mod in_process;
mod json;
mod measure;
mod plan;
mod plot;
mod process;
mod program;
mod quartiles;
mod random;
mod raw;
mod report;
mod results;
mod run;
mod series;
mod session;
mod subject;
mod svg;
mod targets;
mod task;
mod verify;
mod window;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::cpu::Cores;
use crate::image::Images;
use crate::measure::Bench;
use crate::plan::Plan;
use crate::program::Paths;
use crate::quartiles::Quartiles;
use crate::report::Report;
use crate::results::{Results, Row};
use crate::run::Run;
use crate::subject::Subject;
use crate::task::Task;

/// Compares block devices over vhost-user, and the limit that the kernel sets.
#[derive(Parser)]
struct Args {
    /// What the targets need, in less than five minutes.
    #[arg(long)]
    short: bool,
    /// Only devices whose name contains this; given more than once, any of these.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often everything is measured.
    #[arg(long)]
    repetitions: Option<usize>,
    /// Where the image for reads is made: on a disk whose file system lets io_uring read from the
    /// page cache without a thread. By default beside the results.
    #[arg(long, value_name = "DIRECTORY")]
    image_dir: Option<PathBuf>,
    /// Where the image for writes is made: in memory.
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    memory_dir: PathBuf,
    /// The images' size.
    #[arg(long, default_value_t = 512)]
    image_mib: u64,
    /// Our device; without it, it is left out.
    #[arg(long, value_name = "PROGRAM")]
    vhost_user_blk: Option<PathBuf>,
    /// The peer; without it, it is left out.
    #[arg(long, value_name = "PROGRAM")]
    qemu_storage_daemon: Option<PathBuf>,
    /// Where compare.md, compare.json and compare.svg are written.
    #[arg(long, default_value = ".")]
    output: PathBuf,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if nothing went wrong; whether targets are met has no part in that.
fn compare(args: &Args) -> Result<bool> {
    let mut plan = if args.short { Plan::short() } else { Plan::full() };
    plan.repetitions = args.repetitions.unwrap_or(plan.repetitions);
    let programs =
        Paths { ours: args.vhost_user_blk.clone(), qemu: args.qemu_storage_daemon.clone() };
    let mut notes = select(&mut plan, &programs, &args.only);
    let cores = Cores::choose()?;
    Cores::pin(cores.client)?;
    fs::create_dir_all(&args.output).context("making the directory for the results")?;
    let disk = args.image_dir.as_ref().unwrap_or(&args.output);
    let images = Images::create(disk, &args.memory_dir, args.image_mib << 20)?;
    let scratch = tempfile::tempdir().context("making a directory for sockets")?;
    let bench = Bench {
        images: &images,
        programs: &programs,
        cores,
        scratch: scratch.path(),
        window: plan.window,
    };
    let mut facts = facts::facts(&plan, cores, &images, &programs);
    let load = facts::load();

    let Run { results, failures, cut_off, .. } = Run::of(&plan, &bench);
    let (rows, none) = results.rows(&plan.work);
    facts.push(noise(&rows, &results, &load));
    notes.extend(cut_off.map(|done| format!("Time was up after {done} repetitions.")));
    notes.extend(none.iter().map(|what| format!("No window of this is believed: {what}")));
    notes.extend(failures.iter().cloned());

    let verdicts = targets::verdicts(&results);
    let report = Report { facts: &facts, rows: &rows, verdicts: &verdicts, notes: &notes };
    let markdown = report.markdown();
    print!("{markdown}");
    for (name, text) in [
        ("compare.md", markdown),
        ("compare.json", serde_json::to_string_pretty(&json::rows(&rows))?),
        ("compare.svg", plot::svg(&rows)),
    ] {
        let path = args.output.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    Ok(failures.is_empty())
}

/// Leaves out what isn't there or not asked for; a note for each program that isn't.
fn select(plan: &mut Plan, programs: &Paths, only: &[String]) -> Vec<String> {
    let asked = |task: &Task| {
        let device = task.subject.to_string();
        only.is_empty() || only.iter().any(|name| device.contains(name))
    };
    plan.work.retain(asked);
    let missing = |task: &Task| match &task.subject {
        Subject::Served { program, .. } => programs.of(*program).is_none(),
        _ => false,
    };
    let mut notes: Vec<String> = plan
        .work
        .iter()
        .filter(|task| missing(task))
        .map(|task| format!("{} was not there, so it was not measured.", task.subject))
        .collect();
    notes.dedup();
    plan.work.retain(|task| !missing(task));
    notes
}

/// How far the figures can be trusted.
fn noise(rows: &[Row], results: &Results, load_before: &str) -> String {
    let believed: usize = rows.iter().map(|row| row.n).sum();
    let doubts: Vec<String> =
        results.doubts().iter().map(|(doubt, n)| format!("{n}: {doubt}")).collect();
    let rejected = if doubts.is_empty() { "none".to_owned() } else { doubts.join(", ") };
    let spread = |of: fn(&Row) -> &Quartiles| {
        let spreads = rows.iter().map(|row| of(row).spread());
        Quartiles::of(spreads).map_or(0.0, |spread| spread.median * 100.0)
    };
    format!(
        "Noise: {believed} windows believed; rejected and repeated: {rejected}. Half of the rows \
         have quartiles within {:.1} % of each other in IOPS, {:.1} % in p50, {:.1} % in CPU. Load \
         averages before: {load_before}, after: {}.",
        spread(|row| &row.iops),
        spread(|row| &row.p50_us),
        spread(|row| &row.cpu_us_per_request),
        facts::load()
    )
}
