//! Many cases: some at once, one line for each, and a closing line.

use crate::case::Case;
use crate::paths;
use crate::progress::human;
use crate::run::{self, Outcome};
use crate::testbed::Testbed;
use anyhow::{Context as _, Result};
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// How much of a failed run's console is shown.
const LAST_LINES: usize = 30;

pub(crate) fn list() -> Result<()> {
    for case in Case::all()? {
        println!("{:<20} {}", case.name, case.about);
    }
    Ok(())
}

enum Verdict {
    Pass,
    Fail,
    Skip,
}

/// How many cases came to which verdict.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => self.failed += 1,
            Verdict::Skip => self.skipped += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "testbed: {passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs the cases; true if none failed.
pub(crate) fn run(cases: &[Case], jobs: usize, verbose: bool) -> Result<bool> {
    let mut testbed = Testbed::build(false)?;
    testbed.prepare(cases)?;
    let binaries = testbed.binaries(cases)?;
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    let alone = cases.len() == 1;
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = match testbed.unmet(case) {
                        Some(why) => skip(case, &why),
                        None => one(&testbed, &binaries, case, verbose, alone),
                    };
                    tally.lock().unwrap_or_else(PoisonError::into_inner).count(verdict);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally} on Xen {}", testbed.xen_version);
    Ok(tally.failed == 0)
}

/// What a failed test must not keep from running: the others.
const ALL: &str = "--no-fail-fast";

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
            &["nextest", "run", "--workspace", "--all-features", ALL],
            &["test", "--doc", "--workspace", "--all-features", ALL],
        ]
    } else {
        &[&["test", "--workspace", "--all-features", ALL]]
    };
    let mut passed = true;
    for run in runs {
        let status = Command::new("cargo").current_dir(paths::root()).args(*run).status();
        passed &= status.context("starting cargo")?.success();
    }
    Ok(self::run(&Case::all()?, jobs, false)? && passed)
}

fn skip(case: &Case, why: &str) -> Verdict {
    println!("SKIP {:<20} {why}", case.name);
    Verdict::Skip
}

fn one(testbed: &Testbed, binaries: &Path, case: &Case, verbose: bool, alone: bool) -> Verdict {
    let echo = |line: &str| {
        let marked = line.starts_with("@@ ") || line.contains("| %% ");
        if verbose || (alone && marked) {
            if alone { println!("    {line}") } else { println!("    {}: {line}", case.name) }
        }
    };
    match run::run(testbed, binaries, case, &echo) {
        Ok(outcome) => {
            print!("{}", report(&outcome));
            if outcome.fault.is_none() { Verdict::Pass } else { Verdict::Fail }
        }
        Err(error) => {
            println!("FAIL {} ({error:#})", case.name);
            Verdict::Fail
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

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_closing_line_counts_passed_failed_and_skipped() {
        let line = |skipped| Tally { passed: 12, failed: 1, skipped }.to_string();
        assert_eq!(line(0), "testbed: 12 passed, 1 failed, 0 skipped");
        assert_eq!(line(5), "testbed: 12 passed, 1 failed, 5 skipped");
    }
}
