//! `cargo xtask miri`: the tests that Miri can run, of what is unsafe or shared with a guest.

use crate::log::Log;
use crate::paths;
use crate::progress::human;
use crate::toolchain::quiet;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// Packages, and what is run of each, as arguments of `cargo test`. Tests that Miri can't run, or
/// only in hours, leave themselves out by `cfg(miri)`, or do less.
const SELECTION: [(&str, &[&str]); 8] = [
    ("virtio-dev", &["--lib", "--tests"]),
    ("virtio-mmio-dev", &["--lib", "--tests"]),
    // Its registers are neither unsafe nor shared; a device whole has memory and messages.
    ("virtio-pci-dev", &["--test", "inline"]),
    ("virtio-blk-dev", &["--all-features", "--lib", "--tests"]),
    ("xen-ioreq", &["--lib"]),
    ("xen-foreignmem", &["--lib", "--tests"]),
    ("xen-evtchn", &["--all-features", "--lib"]),
    ("xen-store", &["--all-features", "--lib"]),
];

/// True if all tests of `packages`, or of all packages, passed; or if Miri can't be had here, and
/// they compile for a machine that has it.
pub(crate) fn run(packages: &[String]) -> Result<bool> {
    let selection = selected(packages)?;
    let Some(toolchain) = toolchain() else {
        eprintln!(
            "  no toolchain here has miri, and rustup can't add it: compiling its tests only"
        );
        let mut passed = true;
        for (package, arguments) in selection {
            let mut check = Command::new("cargo");
            check
                .env("RUSTFLAGS", "--cfg miri -Dwarnings")
                .env("CARGO_TARGET_DIR", paths::target().join("miri"))
                .args(["check", "--quiet", "--locked", "-p", package])
                .args(arguments)
                .current_dir(paths::root());
            let status = check.status().with_context(|| format!("starting {check:?}"))?;
            passed &= status.success();
        }
        println!("miri: SKIPPED (not to be had); what it would run compiles: {passed}");
        return Ok(passed);
    };
    let started = Instant::now();
    let mut passed = true;
    for (package, arguments) in selection {
        passed &= one(toolchain, package, arguments)?;
    }
    let verdict = if passed { "PASS" } else { "FAIL" };
    println!("miri: {verdict} in {}", human(started.elapsed()));
    Ok(passed)
}

fn selected(packages: &[String]) -> Result<Vec<(&'static str, &'static [&'static str])>> {
    let names = SELECTION.map(|(package, _)| package);
    if let Some(unknown) = packages.iter().find(|package| !names.contains(&package.as_str())) {
        bail!("Miri has nothing to run of {unknown}, but of: {}", names.join(", "));
    }
    let wanted = |name: &str| packages.is_empty() || packages.iter().any(|one| one == name);
    Ok(SELECTION.into_iter().filter(|(package, _)| wanted(package)).collect())
}

/// Runs one package's tests; true if there were some, and they passed.
fn one(toolchain: &str, package: &str, arguments: &[&str]) -> Result<bool> {
    let log = Log::create(paths::target().join("miri").join(format!("{package}.log")))?;
    eprintln!("  running {package}, its log: {}", log.path().display());
    let started = Instant::now();
    let mut test = Command::new("rustup");
    test.args(["run", toolchain, "cargo", "miri", "test", "--locked", "-p", package])
        .args(arguments)
        .args(["--", "-Zunstable-options", "--report-time"])
        .env("CARGO_TARGET_DIR", paths::target().join("miri"))
        // proptest wants the working directory. What an engine never gives back is leaked on
        // purpose, and a test does that.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks")
        .current_dir(paths::root());
    let outcome = log.run(&mut test);
    let text = String::from_utf8_lossy(&fs::read(log.path())?).into_owned();
    let counts = Counts::of(&text);
    let passed = outcome.is_ok() && counts.passed > 0;
    println!("{}", line(package, passed, counts, started.elapsed()));
    if let Err(error) = outcome {
        println!("{error:#}");
    }
    Ok(passed)
}

fn line(package: &str, passed: bool, counts: Counts, time: Duration) -> String {
    let verdict = if passed { "PASS" } else { "FAIL" };
    let Counts { passed, failed, ignored } = counts;
    format!(
        "{verdict} {package:<15} {passed} passed, {failed} failed, {ignored} ignored, {}",
        human(time)
    )
}

/// How many tests came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    /// Adds up the last line of each test binary.
    fn of(log: &str) -> Self {
        let mut all = Self::default();
        // "test result: ok. 88 passed; 0 failed; 1 ignored; 0 measured; …"
        for result in log.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            let count = |what: &str| -> u64 {
                let part = result.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
                part.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
            };
            all.passed += count("passed");
            all.failed += count("failed");
            all.ignored += count("ignored");
        }
        all
    }
}

/// A toolchain with Miri, after trying to make one.
fn toolchain() -> Option<&'static str> {
    let has = |name: &str| {
        quiet(Command::new("rustup").args(["run", name, "cargo", "miri", "--version"]))
    };
    let found = || ["nightly", "stable"].into_iter().find(|name| has(name));
    found().or_else(|| {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "--toolchain", "nightly", "miri", "rust-src"]);
        quiet(&mut add);
        found()
    })
}

#[cfg(test)]
mod tests {
    use super::{Counts, SELECTION, line, selected};
    use std::time::Duration;

    const LOG: &str = "\
test queue::a_chain ... ok <0.153s>
test result: ok. 88 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 143.75s
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s
test result: FAILED. 3 passed; 2 failed; 4 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    #[test]
    fn a_package_is_told_in_a_line() {
        let counts = Counts::of(LOG);
        assert_eq!(counts, Counts { passed: 91, failed: 2, ignored: 5 });
        assert_eq!(
            line("xen-store", false, counts, Duration::from_secs(145)),
            "FAIL xen-store       91 passed, 2 failed, 5 ignored, 2 min 25 s"
        );
        assert_eq!(Counts::of("error: unsupported operation"), Counts::default());
    }

    #[test]
    fn all_packages_are_run_or_those_that_are_named() {
        assert_eq!(selected(&[]).unwrap().len(), SELECTION.len());
        let named = selected(&["xen-store".to_owned(), "xen-ioreq".to_owned()]).unwrap();
        assert_eq!(
            named.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["xen-ioreq", "xen-store"]
        );
        let error = selected(&["xtask".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("nothing to run of xtask, but of: virtio-dev, "), "{error}");
    }
}
