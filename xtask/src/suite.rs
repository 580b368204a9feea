//! Many cases: some at once, one line for each, and a closing line.

use crate::case::Case;
use crate::paths;
use crate::progress::human;
use crate::run::{self, Outcome};
use crate::testbed::Testbed;
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How much of a failed run's console is shown.
const LAST_LINES: usize = 30;

pub(crate) fn list() -> Result<()> {
    for case in Case::all()? {
        println!("{:<20} {}", case.name, case.about);
    }
    Ok(())
}

/// Runs the cases; true if all passed.
pub(crate) fn run(cases: &[Case], jobs: usize, verbose: bool) -> Result<bool> {
    let testbed = Testbed::build(false)?;
    let binaries = testbed.binaries(cases.iter().any(|case| case.daemon))?;
    let (next, results) = (AtomicUsize::new(0), Mutex::new((0, 0)));
    let alone = cases.len() == 1;
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = one(&testbed, &binaries, case, verbose, alone);
                    let mut results =
                        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if passed { results.0 += 1 } else { results.1 += 1 }
                }
            });
        }
    });
    let (passed, failed) = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("testbed: {passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// `cargo nextest` (or `cargo test`) and the examples in the documentation, then all cases.
pub(crate) fn workspace_and_cases(jobs: usize) -> Result<bool> {
    let nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let runs: &[&[&str]] = if nextest {
        &[
            &["nextest", "run", "--workspace", "--all-features"],
            &["test", "--doc", "--workspace", "--all-features"],
        ]
    } else {
        &[&["test", "--workspace", "--all-features"]]
    };
    let mut passed = true;
    for run in runs {
        let status = Command::new("cargo").current_dir(paths::root()).args(*run).status();
        passed &= status.context("starting cargo")?.success();
    }
    Ok(self::run(&Case::all()?, jobs, false)? && passed)
}

fn one(testbed: &Testbed, binaries: &Path, case: &Case, verbose: bool, alone: bool) -> bool {
    let echo = |line: &str| {
        let marked = line.starts_with("@@ ") || line.contains("| %% ");
        if verbose || (alone && marked) {
            if alone { println!("    {line}") } else { println!("    {}: {line}", case.name) }
        }
    };
    match run::run(testbed, binaries, case, &echo) {
        Ok(outcome) => {
            print!("{}", report(&outcome));
            outcome.fault.is_none()
        }
        Err(error) => {
            println!("FAIL {} ({error:#})", case.name);
            false
        }
    }
}

fn report(outcome: &Outcome) -> String {
    let Outcome { name, fault, console, took, log, .. } = outcome;
    let took = human(*took);
    let Some(fault) = fault else {
        return format!("PASS {name:<20} {:>3} checks  {took}\n", console.checks);
    };
    let from = console.lines.len().saturating_sub(LAST_LINES);
    let tail: String = console.lines[from..].iter().map(|line| format!("  | {line}\n")).collect();
    format!("{tail}FAIL {name:<20} {fault}  {took}\n  the whole console: {}\n", log.display())
}
