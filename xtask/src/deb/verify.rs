//! Whether a package is what it should be: its list of files, its unit, what lintian says.

use super::package::Package;
use super::recipe;
use crate::log::output;
use crate::toolchain::quiet;
use anyhow::{Context as _, Result};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What came of one look at a package.
pub(super) struct Finding {
    what: &'static str,
    verdict: Verdict,
}

enum Verdict {
    Fine,
    /// Why it couldn't be looked at.
    Skipped(String),
    Fault(String),
}

impl Finding {
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.verdict, Verdict::Fault(_))
    }
}

#[cfg(test)]
impl Finding {
    pub(super) fn is_lintians(&self) -> bool {
        self.what == "lintian"
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Verdict::Fine => write!(f, "{}: ok", self.what),
            Verdict::Skipped(why) => write!(f, "{}: skipped: {why}", self.what),
            Verdict::Fault(what) => write!(f, "{}: FAIL\n{what}", self.what),
        }
    }
}

/// Looks `deb` over. The program in it is started if it `runs_here`.
pub(super) fn all(deb: &Path, package: &Package, runs_here: bool) -> Result<Vec<Finding>> {
    let root = deb.with_extension("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("emptying {}", root.display()))?;
    }
    output(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(&root))?;
    let program = match runs_here {
        true => program(&root, package)?,
        false => Verdict::Skipped(format!("it is for {}", package.architecture.debian())),
    };
    let findings = vec![
        Finding { what: "list of files", verdict: contents(deb)? },
        Finding { what: "program", verdict: program },
        Finding { what: "unit", verdict: unit(&root, package.name)? },
        Finding { what: "lintian", verdict: lintian(deb)? },
    ];
    fs::remove_dir_all(&root)?;
    Ok(findings)
}

/// Modes, owners and paths are those of `packaging/debian/contents`.
fn contents(deb: &Path) -> Result<Verdict> {
    let expected =
        fs::read_to_string(recipe("debian/contents")).context("packaging/debian/contents")?;
    let found = listing(&output(Command::new("dpkg-deb").arg("--contents").arg(deb))?);
    let differences = differences(&expected, &found);
    let fault = || Verdict::Fault(format!("against packaging/debian/contents:\n{differences}"));
    Ok(if differences.is_empty() { Verdict::Fine } else { fault() })
}

/// Of `dpkg-deb --contents`, what doesn't change with the content: mode, owner, path.
fn listing(told: &str) -> String {
    let lines = told.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (mode, owner) = (words.next()?, words.next()?);
        Some(format!("{mode} {owner} {}\n", words.nth(3)?))
    });
    lines.collect()
}

/// The lines that only one has.
fn differences(expected: &str, found: &str) -> String {
    let only = |these: &str, those: &str, mark: &str| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    only(expected, found, "-") + &only(found, expected, "+")
}

/// It starts, and is of this version.
fn program(root: &Path, package: &Package) -> Result<Verdict> {
    let said = output(Command::new(root.join("usr/sbin").join(package.name)).arg("--version"))?;
    let expected = format!("{} {}", package.name, package.release.version);
    let fault = || Verdict::Fault(format!("--version says {said:?}, and should {expected:?}"));
    Ok(if said.trim() == expected { Verdict::Fine } else { fault() })
}

/// systemd has nothing against the unit.
fn unit(root: &Path, name: &str) -> Result<Verdict> {
    let mut verify = Command::new("systemd-analyze");
    if !quiet(verify.arg("--version")) {
        return Ok(Verdict::Skipped("there is no systemd-analyze".to_owned()));
    }
    let unit = root.join("usr/lib/systemd/system").join(format!("{name}.service"));
    // The program it starts is not on this machine.
    let mut text = fs::read_to_string(&unit)?
        .replace("=/usr/sbin/", &format!("={}/usr/sbin/", root.display()));
    let version = output(Command::new("systemd-analyze").arg("--version"))?;
    let version = version.split_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    if version.is_some_and(|version| version < 254) {
        // It doesn't know this one.
        text = text
            .lines()
            .filter(|line| !line.starts_with("DelegateSubgroup="))
            .fold(String::new(), |text, line| text + line + "\n");
    }
    let copy = root.join(format!("{name}.service"));
    fs::write(&copy, text)?;
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&copy).stdin(Stdio::null());
    let out = verify.output().context("starting systemd-analyze")?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // It speaks of every unit that it loads on the way, too.
    let ours: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
    Ok(if ours.is_empty() { Verdict::Fine } else { Verdict::Fault(ours.join("\n")) })
}

/// Debian's own judge, errors and warnings.
fn lintian(deb: &Path) -> Result<Verdict> {
    let mut lintian = Command::new("lintian");
    if !quiet(lintian.arg("--version")) {
        return Ok(Verdict::Skipped("lintian is not installed".to_owned()));
    }
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--no-cfg", "--fail-on", "error,warning"]).arg(deb);
    let out = lintian.stdin(Stdio::null()).output().context("starting lintian")?;
    let fault = || Verdict::Fault(String::from_utf8_lossy(&out.stdout).into_owned());
    Ok(if out.status.success() { Verdict::Fine } else { fault() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::read;
    use std::path::PathBuf;

    /// A root that has this unit and a program for it to start.
    fn root_with(name: &str, text: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("xtask-unit-{name}-{}", std::process::id()));
        let mut tree = crate::deb::tree::Tree::default();
        tree.file("usr/lib/systemd/system/xen-virtio-blk.service", text);
        tree.program("usr/sbin/xen-virtio-blk", "#!/bin/sh\n");
        tree.write(&root).unwrap();
        root
    }

    fn verdict(name: &str, text: &str) -> Verdict {
        let root = root_with(name, text);
        let verdict = unit(&root, "xen-virtio-blk").unwrap();
        fs::remove_dir_all(root).unwrap();
        verdict
    }

    #[test]
    fn systemd_has_nothing_against_the_unit_and_would_say_so_if_it_had() {
        let text = read(&recipe("systemd/xen-virtio-blk.service")).unwrap();
        let text = String::from_utf8(text).unwrap();
        match verdict("right", &text) {
            Verdict::Fine => {}
            Verdict::Skipped(why) => return println!("skipped: {why}"),
            Verdict::Fault(what) => panic!("{what}"),
        }
        for (right, wrong) in [
            ("WatchdogSec=1min", "WatchdogSec=soon"),
            ("RestrictRealtime", "RestrictsRealtime"),
            ("ExecStart=/usr/sbin/xen-virtio-blk", "ExecStart=/usr/sbin/another"),
        ] {
            let verdict = verdict("wrong", &text.replace(right, wrong));
            assert!(matches!(verdict, Verdict::Fault(_)), "{wrong}");
        }
    }

    #[test]
    fn a_file_too_many_or_too_few_or_of_another_mode_is_named() {
        let expected = "-rw-r--r-- root/root ./a\n-rw-r--r-- root/root ./b\n";
        let told = "-rw-r--r-- root/root       3 2026-01-01 00:00 ./a\n\
                    -rwxr-xr-x root/root       3 2026-01-01 00:00 ./b\n";
        let differences = differences(expected, &listing(told));
        assert_eq!(differences, "- -rw-r--r-- root/root ./b\n+ -rwxr-xr-x root/root ./b\n");
    }
}
