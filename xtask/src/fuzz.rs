//! `cargo xtask fuzz`: the targets of `fuzz/`, each for a time.

use crate::toolchain::{Unstable, ensure_tool};
use crate::{cache, paths};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CARGO_FUZZ: &str = "0.13.2";
/// An input that takes longer, in seconds, or more memory, in MiB, is a finding.
const TIMEOUT: u32 = 25;
const MEMORY: u32 = 2048;
/// The longest input, in bytes.
const LONGEST: u32 = 4096;
/// How much of a finding's log is shown.
const LAST_LINES: usize = 40;

/// How a target is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    /// Several times as many inputs a second: what finds new ones.
    Fast,
    /// With AddressSanitizer, which sees an access out of bounds that happens to do no harm.
    Address,
}

impl Build {
    fn options(self) -> &'static [&'static str] {
        match self {
            // Comparisons are traced to guess magic numbers, which the seeds have already.
            Self::Fast => &["--sanitizer", "none", "--no-trace-compares"],
            Self::Address => &["--sanitizer", "address"],
        }
    }

    fn dir(self) -> PathBuf {
        paths::target().join(match self {
            Self::Fast => "fuzz",
            Self::Address => "fuzz-address",
        })
    }
}

/// Fuzzes `targets`, or all of them, `minutes` each, and carries out everything that was kept once
/// more under AddressSanitizer; true if nothing was found.
pub(crate) fn run(minutes: u64, targets: &[String]) -> Result<bool> {
    let all = known()?;
    let targets = if targets.is_empty() { &all } else { targets };
    if let Some(unknown) = targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no fuzz target {unknown}; there are: {}", all.join(", "));
    }
    ensure_tool("fuzz", CARGO_FUZZ)?;
    let toolchain = Unstable::find();
    let fast = build(toolchain, Build::Fast, targets)?;
    let address = if toolchain.has_address_sanitizer(&Build::Address.dir())? {
        Some(build(toolchain, Build::Address, targets)?)
    } else {
        eprintln!("  AddressSanitizer doesn't run here: left out");
        None
    };
    let (mut passed, mut failed) = (0, 0);
    for target in targets {
        let found_nothing = one(target, &fast.join(target), Duration::Minutes(minutes))?
            && match &address {
                Some(address) => one(target, &address.join(target), Duration::Once)?,
                None => true,
            };
        if found_nothing { passed += 1 } else { failed += 1 }
    }
    println!("fuzz: {passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn dir() -> PathBuf {
    paths::root().join("fuzz")
}

fn known() -> Result<Vec<String>> {
    let files = paths::files_below(&dir().join("fuzz_targets"))?;
    Ok(files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect())
}

/// Builds the targets; gives where they are.
fn build(toolchain: Unstable, how: Build, targets: &[String]) -> Result<PathBuf> {
    let out = how.dir();
    let options = how.options();
    eprintln!("  building with {}, {}", toolchain.name(), options.join(" "));
    // cargo-fuzz has no way to insist on the lock file.
    let locked = Command::new("cargo")
        .current_dir(dir())
        .args(["fetch", "--quiet", "--locked"])
        .status()
        .context("starting cargo fetch")?;
    if !locked.success() {
        bail!("fuzz/Cargo.lock doesn't fit fuzz/Cargo.toml: run cargo update in fuzz/");
    }
    for target in targets {
        let status = toolchain
            .command("cargo")
            .current_dir(paths::root())
            .args(["fuzz", "build", "--fuzz-dir", "fuzz"])
            .args(options)
            .arg("--target-dir")
            .arg(&out)
            .arg(target)
            .status()
            .context("starting cargo fuzz")?;
        if !status.success() {
            bail!("the fuzz target {target} doesn't build ({status})");
        }
    }
    Ok(out.join(toolchain.host()?).join("release"))
}

/// How long a target runs.
#[derive(Clone, Copy)]
enum Duration {
    Minutes(u64),
    /// Over what was kept, and no more.
    Once,
}

/// Runs one target; true if it found nothing.
fn one(target: &str, binary: &Path, duration: Duration) -> Result<bool> {
    let cache = cache::dir()?.join("fuzz");
    let (corpus, findings) =
        (cache.join("corpus").join(target), cache.join("findings").join(target));
    let (name, limit) = match duration {
        Duration::Minutes(minutes) => {
            eprintln!("  fuzzing {target} for {minutes} min");
            (target.to_owned(), format!("-max_total_time={}", minutes.saturating_mul(60)))
        }
        Duration::Once => (format!("{target}-address"), "-runs=0".to_owned()),
    };
    let log = Build::Fast.dir().join(format!("{name}.log"));
    for dir in [&corpus, &findings] {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let status = Command::new(binary)
        .arg(&corpus)
        .arg(dir().join("seeds").join(target))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(limit)
        .arg(format!("-timeout={TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .with_context(|| format!("starting {}", binary.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        println!("PASS {name:<18} {}", Figures::of(&text));
        return Ok(true);
    }
    print!("{}", finding(target, binary, &text));
    println!("  the whole log: {}", log.display());
    Ok(false)
}

/// What a run came to, as libFuzzer tells it.
struct Figures {
    runs: u64,
    per_second: u64,
    coverage: u64,
    corpus: u64,
}

impl Figures {
    fn of(log: &str) -> Self {
        let stat = |name: &str| {
            let line = log.lines().rev().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
        };
        // "#8192	pulse  cov: 2304 ft: 5632 corp: 310/20Kb …"
        let counter = |name: &str| {
            let number = |line: &str| {
                let rest = line.split_once(name)?.1.trim_start();
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse().ok()
            };
            log.lines().rev().filter(|line| line.starts_with('#')).find_map(number).unwrap_or(0)
        };
        Self {
            runs: stat("stat::number_of_executed_units:"),
            per_second: stat("stat::average_exec_per_sec:"),
            coverage: counter("cov:"),
            corpus: counter("corp:"),
        }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runs, per_second, coverage, corpus } = self;
        write!(f, "{runs} runs, {per_second}/s, cov: {coverage}, corpus: {corpus}")
    }
}

/// What was found, and what to do with it.
fn finding(target: &str, binary: &Path, log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    let mut text: String = lines[from..].iter().map(|line| format!("  | {line}\n")).collect();
    let written =
        |line: &&str| line.split_once("Test unit written to ").map(|(_, path)| path.to_owned());
    let Some(input) = lines.iter().rev().find_map(written) else {
        return format!("{text}FAIL {target}: the fuzzer ended without an input\n");
    };
    text += &format!(
        "FAIL {target}: {input}\n\
         \x20 again:   {} {input}\n\
         \x20 smaller: cargo fuzz tmin --fuzz-dir fuzz {target} {input}\n\
         \x20 mended:  keep it as fuzz/seeds/{target}/<what it was>; cd fuzz && cargo test runs it\n",
        binary.display()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{Figures, finding};
    use std::path::Path;

    const PASSED: &str = "\
INFO: seed corpus: files: 26 min: 8b max: 600b total: 16000b rss: 40Mb
#27\tINITED cov: 1200 ft: 1300 corp: 20/9Kb exec/s: 0 rss: 50Mb
#65536\tpulse  cov: 2304 ft: 5632 corp: 310/20Kb lim: 4096 exec/s: 16384 rss: 60Mb
Done 70000 runs in 61 second(s)
stat::number_of_executed_units: 70000
stat::average_exec_per_sec:     1147
";

    #[test]
    fn a_run_is_told_in_a_line() {
        let told = Figures::of(PASSED).to_string();
        assert_eq!(told, "70000 runs, 1147/s, cov: 2304, corpus: 310");
        assert_eq!(Figures::of("").to_string(), "0 runs, 0/s, cov: 0, corpus: 0");
    }

    #[test]
    fn a_finding_says_how_to_have_it_again() {
        let log =
            "thread panicked\nartifact_prefix='/c/'; Test unit written to /c/crash-1\nBase64: AA\n";
        let told = finding("mmio", Path::new("/t/mmio"), log);
        assert!(told.contains("FAIL mmio: /c/crash-1\n"), "{told}");
        assert!(told.contains("/t/mmio /c/crash-1\n"), "{told}");
        assert!(told.contains("  | thread panicked\n"), "{told}");
        assert!(finding("mmio", Path::new("/t/mmio"), "killed").contains("without an input"));
    }
}
