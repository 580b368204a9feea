//! The serial console of a run: every line with a time stamp in a log, and what it means.

use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::path::Path;
use std::time::Instant;

/// What a healthy Xen, dom0, guest or machine never says.
const FATAL: [&str; 11] = [
    "Kernel panic",
    "Internal error: Oops",
    "Unable to handle kernel",
    "BUG:",
    "kernel BUG at",
    "Xen BUG",
    "Panic on CPU",
    "Assertion '",
    "detected stall",
    "rcu_sched self-detected",
    "vhost vring error",
];
/// What dom0's init and the cases' verbs print at the beginning of a line.
const OK: &str = "@@ ok ";
const NOT_OK: &str = "@@ not ok ";
const END: &str = "@@ end";
/// Xen's own word for dom0 having powered off.
const POWER_OFF: &str = "Hardware Dom0 halted";

/// What the console has said so far.
#[derive(Default, Debug)]
pub(crate) struct Console {
    /// All lines, without stamps.
    pub(crate) lines: Vec<String>,
    pub(crate) checks: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) fatal: Option<String>,
    pub(crate) ended: bool,
    pub(crate) powered_off: bool,
}

impl Console {
    /// Takes one line in; `allowed` are texts that this run expects although they are fatal elsewhere.
    pub(crate) fn take(&mut self, line: &str, allowed: &[String]) {
        if line.starts_with(OK) {
            self.checks += 1;
        } else if let Some(what) = line.strip_prefix(NOT_OK) {
            self.checks += 1;
            self.failed.push(what.to_owned());
        } else if line == END {
            self.ended = true;
        } else if line.contains(POWER_OFF) {
            self.powered_off = true;
        }
        let fatal = FATAL.iter().any(|text| line.contains(text));
        if fatal && self.fatal.is_none() && !allowed.iter().any(|text| line.contains(text.as_str()))
        {
            self.fatal = Some(line.to_owned());
        }
        self.lines.push(line.to_owned());
    }

    /// What a measurement left out and why: its notes `left out WHAT: WHY`.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.strip_prefix("@@ note left out "))
    }

    /// Why the run is no pass, once the machine has ended by itself.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(line) = &self.fatal {
            return Some(line.clone());
        }
        match self.failed.as_slice() {
            [] => {}
            [only] => return Some(only.clone()),
            [first, rest @ ..] => return Some(format!("{first} (and {} more)", rest.len())),
        }
        if !self.ended {
            return Some("the case did not reach its end".to_owned());
        }
        if self.checks == 0 {
            return Some("the case checked nothing".to_owned());
        }
        (!self.powered_off).then(|| "dom0 did not power off".to_owned())
    }
}

/// Reads lines until the end, stamps and logs each, and hands it on.
pub(crate) fn read(
    from: impl Read,
    log: &Path,
    started: Instant,
    mut hand_on: impl FnMut(String),
) -> Result<()> {
    let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let mut log = BufWriter::new(file);
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes)? > 0 {
        let line = clean(&bytes);
        writeln!(log, "[{:7.2}] {line}", started.elapsed().as_secs_f64())?;
        log.flush()?;
        hand_on(line);
        bytes.clear();
    }
    Ok(())
}

/// The line without its end, and with nothing in it that a terminal would obey.
fn clean(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::{Console, read};
    use std::time::Instant;

    const PASS: [&str; 3] =
        ["@@ ok it works", "@@ end", "(XEN) Hardware Dom0 halted: halting machine"];

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.take(line, &["allowed".to_owned()]));
        console
    }

    #[test]
    fn a_whole_run_has_no_fault() {
        assert_eq!(console(&PASS).fault(), None);
    }

    #[test]
    fn every_missing_part_is_a_fault() {
        for missing in PASS {
            let lines: Vec<&str> = PASS.into_iter().filter(|line| *line != missing).collect();
            assert!(console(&lines).fault().is_some(), "without {missing:?}");
        }
    }

    #[test]
    fn what_fails_or_crashes_is_a_fault_whatever_comes_after() {
        for line in
            ["@@ not ok it works", "pv| Kernel panic - not syncing", "(XEN) Xen BUG at x.c:1"]
        {
            let lines: Vec<&str> = [line].into_iter().chain(PASS).collect();
            let fault = console(&lines).fault().unwrap();
            assert!(line.contains(&fault), "{fault}");
        }
        let lines: Vec<&str> = ["Kernel panic, allowed"].into_iter().chain(PASS).collect();
        assert_eq!(console(&lines).fault(), None);
    }

    #[test]
    fn a_guest_cannot_speak_for_the_case() {
        assert!(console(&["pv| @@ ok x", "pv| @@ end", PASS[2]]).fault().is_some());
    }

    #[test]
    fn what_is_left_out_is_said() {
        let console = console(&["@@ note figure x", "@@ note left out grant: no grant_usage"]);
        assert_eq!(console.left_out().collect::<Vec<_>>(), ["grant: no grant_usage"]);
    }

    #[test]
    fn lines_are_stamped_and_cleaned() {
        let log = std::env::temp_dir().join(format!("console-{}.log", std::process::id()));
        let mut lines = Vec::new();
        read(&b"one\r\n\x1b[31mtwo\n"[..], &log, Instant::now(), |line| lines.push(line)).unwrap();
        assert_eq!(lines, ["one", "[31mtwo"]);
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(text.starts_with("[   0.0") && text.contains("] one\n"), "{text}");
    }
}
