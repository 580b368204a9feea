//! `cargo xtask gate`: what a request costs in instructions, system calls and allocations, against
//! `benches/gate/baseline.json`. These are the same on a loaded machine as on an idle one.

use crate::baseline::{Baseline, Counts, Now};
use crate::cache::Cache;
use crate::log::output;
use crate::{host, paths};
use anyhow::{Context as _, Result, anyhow, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

const PACKAGES: [&str; 2] = ["strace", "valgrind"];
/// Callgrind counts while the program is in this function.
const COUNTED: &str = "gate_counted";
/// Has glibc copy and clear memory by vector loops: callgrind takes each byte that `rep movsb` or
/// `rep stosb` moves for an instruction, beside which everything else would vanish.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824:\
                        glibc.cpu.x86_rep_stosb_threshold=1073741824";

/// Counts and compares, or makes the baseline anew; true if nothing has risen.
pub(crate) fn run(update: bool) -> Result<bool> {
    let gate = Gate::build()?;
    let compiler = compiler()?;
    let now = gate.count_all()?;
    let path = paths::root().join("benches/gate/baseline.json");
    if update {
        let before = path.is_file().then(|| Baseline::load(&path)).transpose()?;
        let baseline = Baseline::of(compiler, &now, before.as_ref());
        print!("{}", before.as_ref().unwrap_or(&baseline).table(&now));
        baseline.save(&path)?;
        println!("gate: wrote {}", path.display());
        return Ok(true);
    }
    let baseline = Baseline::load(&path)?;
    print!("{}", baseline.table(&now));
    let verdict = baseline.judge(&compiler, &now);
    for note in &verdict.notes {
        println!("note: {note}");
    }
    for failure in &verdict.failures {
        println!("FAIL {failure}");
    }
    if verdict.failures.is_empty() {
        println!("gate: PASS");
    } else {
        println!("gate: FAIL; if it is meant to be so: cargo xtask gate --update, and say why");
    }
    Ok(verdict.failures.is_empty())
}

/// What compiles, and for which machine.
fn compiler() -> Result<String> {
    let told = output(Command::new("rustc").arg("-vV").current_dir(paths::root()))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    let version = told.lines().next().context("rustc has no version")?;
    Ok(format!("{version}, {}", host.context("rustc has no host")?))
}

/// The program that does the work, and where its counts go.
struct Gate {
    program: PathBuf,
    results: PathBuf,
}

impl Gate {
    fn build() -> Result<Self> {
        // Each package has the program of its name; other distributions have them, too.
        if !PACKAGES.iter().all(|tool| has(tool)) {
            host::ensure_packages(&Cache::open()?, &PACKAGES)?;
        }
        let mut build = Command::new("cargo");
        build.args(["build", "--release", "--locked", "-p", "xen-virtio-benches", "--bin", "gate"]);
        if !build.current_dir(paths::root()).status().context("starting cargo")?.success() {
            bail!("the gate doesn't build");
        }
        let results = paths::target().join("gate");
        fs::create_dir_all(&results).with_context(|| format!("creating {}", results.display()))?;
        Ok(Self { program: paths::target().join("release/gate"), results })
    }

    /// Every entry, one after the other on each processor: they don't disturb each other's counts.
    fn count_all(&self) -> Result<Vec<Now>> {
        let listed = output(&mut Command::new(&self.program))?;
        let mut entries = Vec::new();
        for line in listed.lines() {
            let (name, gated) = line.split_once(' ').context("an entry without a kind")?;
            entries.push(Now { name: name.into(), gated: gated == "gated", counts: None });
        }
        let left = Mutex::new(entries.iter_mut());
        let next = || left.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
        let work = || -> Result<()> {
            while let Some(entry) = next() {
                entry.counts = self.count(&entry.name)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..paths::processors()).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().map_err(|_| anyhow!("a counting thread panicked"))?
            })
        })?;
        Ok(entries)
    }

    /// `None` if the machine hasn't what the entry needs.
    fn count(&self, name: &str) -> Result<Option<Counts>> {
        let file = |tool: &str| self.results.join(format!("{}.{tool}", name.replace('/', "-")));
        let (profile, trace) = (file("callgrind"), file("strace"));
        let told = self.under(
            name,
            Command::new("valgrind")
                .env("GLIBC_TUNABLES", TUNABLES)
                .args(["-q", "--tool=callgrind", "--collect-atstart=no"])
                .arg(format!("--toggle-collect={COUNTED}"))
                .arg(format!("--callgrind-out-file={}", profile.display())),
        )?;
        if told.starts_with("skipped") {
            eprintln!("  {name}: {}", told.trim_end());
            return Ok(None);
        }
        // Natively, as under valgrind the clock has to be asked by a system call. Where the host's
        // clock needs one anyway, that is the host's matter.
        self.under(
            name,
            Command::new("strace").args(["-e", "trace=!clock_gettime", "-o"]).arg(&trace),
        )?;
        let instructions = read(&profile, |text| number(text, "totals:"))?;
        let system_calls = read(&trace, system_calls)?;
        let counted = |what| number(&told, what).with_context(|| format!("{name} tells no {what}"));
        let requests = counted("requests")?;
        let each = |count: u64| (count as f64 / requests as f64 * 1000.0).round() / 1000.0;
        Ok(Some(Counts {
            instructions: each(instructions),
            system_calls: each(system_calls),
            allocations: each(counted("allocations")?),
        }))
    }

    fn under(&self, name: &str, tool: &mut Command) -> Result<String> {
        output(tool.arg(&self.program).arg(name)).with_context(|| format!("counting {name}"))
    }
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn read(path: &Path, parse: impl FnOnce(&str) -> Option<u64>) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("{} isn't what was expected", path.display()))
}

/// The number after `label`, at the start of a line.
fn number(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok())
}

/// How many system calls strace's log has between the lines that the program writes before and after
/// what is counted.
fn system_calls(log: &str) -> Option<u64> {
    let from = |marker: &'static str| move |line: &&str| !line.starts_with(marker);
    let mut lines = log.lines().skip_while(from("write(1, \"counting"));
    lines.next()?;
    let mut count = 0;
    for line in lines {
        if line.starts_with("write(1, \"requests") {
            return Some(count);
        }
        // "--- SIG… ---" and "+++ exited +++" are none.
        count += u64::from(line.starts_with(|c: char| c.is_ascii_alphabetic()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{number, system_calls};

    const LOG: &str = "\
execve(\"gate\", [\"gate\", \"sync/read_4k/qd1\"], 0x7ffd /* 20 vars */) = 0
pread64(4, \"Z\"..., 4096, 0) = 4096
write(1, \"counting\\n\", 9)               = 9
pread64(4, \"Z\"..., 4096, 0) = 4096
--- SIGCHLD {si_signo=SIGCHLD} ---
pread64(4, \"Z\"..., 4096, 4096) = 4096
write(1, \"requests 2\\n\", 11)            = 11
write(1, \"allocations 0\\n\", 14)         = 14
+++ exited with 0 +++
";

    #[test]
    fn system_calls_between_the_marks_are_counted() {
        assert_eq!(system_calls(LOG), Some(2));
        let (cut, _) = LOG.split_once("write(1, \"requests").unwrap();
        assert_eq!(system_calls(cut), None, "a program that ended early has no count");
        assert_eq!(system_calls(""), None);
    }

    #[test]
    fn numbers_are_found_by_their_label() {
        let text = "events: Ir\ntotals: 1801213\n";
        assert_eq!(number(text, "totals:"), Some(1_801_213));
        assert_eq!(number(text, "requests"), None);
    }
}
