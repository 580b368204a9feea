//! What was counted when all was well, and how the present compares.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Instructions may rise by this share, or are better by it.
const MARGIN: f64 = 0.03;
/// What rounding may make of the others, which are exact.
const ROUNDING: f64 = 0.000_5;

/// Of one request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
    pub(crate) allocations: f64,
}

/// Counts by entry, and what compiled them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Instructions are the compiler's as much as the code's.
    pub(crate) compiler: String,
    pub(crate) entries: BTreeMap<String, Counts>,
}

/// An entry as it is now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Now {
    pub(crate) name: String,
    /// A rise fails; others are only told.
    pub(crate) gated: bool,
    /// None where the machine hasn't what it needs.
    pub(crate) counts: Option<Counts>,
}

/// What a comparison came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// What is wrong, and of which entry.
    pub(crate) failures: Vec<String>,
    /// What is worth knowing.
    pub(crate) notes: Vec<String>,
}

impl Baseline {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is no baseline: make one with --update", path.display()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The present as the next baseline; what is skipped here stays as it is.
    pub(crate) fn of(compiler: String, now: &[Now], before: Option<&Self>) -> Self {
        let counts =
            |entry: &Now| entry.counts.or_else(|| before?.entries.get(&entry.name).copied());
        let entries = now.iter().filter_map(|entry| Some((entry.name.clone(), counts(entry)?)));
        Self { compiler, entries: entries.collect() }
    }

    /// What `compiler` made of the present, against this.
    pub(crate) fn judge(&self, compiler: &str, now: &[Now]) -> Verdict {
        let mut verdict = Verdict::default();
        let same = self.compiler == compiler;
        if !same {
            verdict.notes.push(format!(
                "the baseline is of {}, this is {compiler}: instructions are told, not judged",
                self.compiler
            ));
        }
        for entry in now.iter().filter(|entry| entry.gated) {
            let Some(new) = entry.counts else {
                verdict.notes.push(format!("{}: skipped", entry.name));
                continue;
            };
            match self.entries.get(&entry.name) {
                Some(old) => verdict.compare(&entry.name, old, &new, same),
                None => verdict.failures.push(format!("{}: not in the baseline", entry.name)),
            }
        }
        for name in self.entries.keys() {
            if !now.iter().any(|entry| entry.name == *name) {
                verdict.failures.push(format!("{name}: in the baseline, and no longer counted"));
            }
        }
        verdict
    }

    /// A line for each entry: its name, before, now, the change; then what differs besides.
    pub(crate) fn table(&self, now: &[Now]) -> String {
        let width = now.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
        let mut text = format!(
            "{:width$} {:>10} {:>10} {:>8} {:>16} {:>16}\n",
            "per request", "baseline", "now", "change", "system calls", "allocations"
        );
        for entry in now {
            let Some(new) = entry.counts else {
                _ = writeln!(text, "{:width$} skipped", entry.name);
                continue;
            };
            let old = self.entries.get(&entry.name);
            let before = old.map_or("-".into(), |old| format!("{:.1}", old.instructions));
            let change = old.map_or("new".into(), |old| percent(old, &new));
            let both = |of: fn(&Counts) -> f64| match old {
                Some(old) if (of(old) - of(&new)).abs() > ROUNDING => {
                    format!("{:.3} → {:.3}", of(old), of(&new))
                }
                _ => format!("{:.3}", of(&new)),
            };
            _ = writeln!(
                text,
                "{:width$} {before:>10} {:>10.1} {change:>8} {:>16} {:>16}{}",
                entry.name,
                new.instructions,
                both(|counts| counts.system_calls),
                both(|counts| counts.allocations),
                if entry.gated { "" } else { "  (not judged)" },
            );
        }
        text
    }
}

impl Verdict {
    fn compare(&mut self, name: &str, old: &Counts, new: &Counts, same_compiler: bool) {
        if same_compiler && new.instructions > old.instructions * (1.0 + MARGIN) + ROUNDING {
            self.failures.push(format!("{name}: instructions {}", percent(old, new)));
        }
        if same_compiler && new.instructions < old.instructions * (1.0 - MARGIN) - ROUNDING {
            self.notes.push(format!(
                "{name}: instructions {}: keep that, by --update",
                percent(old, new)
            ));
        }
        // These are the code's alone.
        for (what, old, new) in [
            ("system calls", old.system_calls, new.system_calls),
            ("allocations", old.allocations, new.allocations),
        ] {
            if new > old + ROUNDING {
                self.failures.push(format!("{name}: {what} {old:.3} → {new:.3}"));
            }
        }
    }
}

fn percent(old: &Counts, new: &Counts) -> String {
    format!("{:+.1} %", (new.instructions / old.instructions - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPILER: &str = "rustc 1.95.0";
    const OLD: Counts = Counts { instructions: 1000.0, system_calls: 1.0, allocations: 0.0 };

    fn baseline() -> Baseline {
        let entries = ["a", "b"].map(|name| (name.to_owned(), OLD));
        Baseline { compiler: COMPILER.into(), entries: entries.into() }
    }

    /// `a` as before, and `b` with these counts.
    fn now(counts: Counts) -> Vec<Now> {
        let entry =
            |name: &str, counts| Now { name: name.into(), gated: true, counts: Some(counts) };
        vec![entry("a", OLD), entry("b", counts)]
    }

    #[test]
    fn a_rise_over_the_margin_fails_and_names_the_entry() {
        let judge = |instructions| baseline().judge(COMPILER, &now(Counts { instructions, ..OLD }));
        assert_eq!(judge(1000.0), Verdict::default());
        assert_eq!(judge(1030.0), Verdict::default());
        assert_eq!(judge(970.0), Verdict::default());
        assert_eq!(judge(1031.0).failures, ["b: instructions +3.1 %"]);
    }

    #[test]
    fn an_improvement_asks_for_a_new_baseline() {
        let verdict = baseline().judge(COMPILER, &now(Counts { instructions: 960.0, ..OLD }));
        assert_eq!(verdict.failures, [""; 0]);
        assert_eq!(verdict.notes, ["b: instructions -4.0 %: keep that, by --update"]);
    }

    #[test]
    fn any_rise_in_system_calls_or_allocations_fails_whatever_compiled_it() {
        for compiler in [COMPILER, "rustc 1.96.0"] {
            let judge = |counts| baseline().judge(compiler, &now(counts)).failures;
            let more = Counts { system_calls: 1.001, ..OLD };
            assert_eq!(judge(more), ["b: system calls 1.000 → 1.001"]);
            let more = Counts { allocations: 0.031, ..OLD };
            assert_eq!(judge(more), ["b: allocations 0.000 → 0.031"]);
            assert_eq!(judge(Counts { system_calls: 0.5, ..OLD }), [""; 0]);
        }
    }

    #[test]
    fn instructions_of_another_compiler_are_not_judged() {
        let now = now(Counts { instructions: 2000.0, ..OLD });
        let verdict = baseline().judge("rustc 1.96.0", &now);
        assert_eq!(verdict.failures, [""; 0]);
        assert!(verdict.notes[0].contains("rustc 1.95.0, this is rustc 1.96.0"), "{verdict:?}");
    }

    #[test]
    fn entries_without_a_counterpart_fail() {
        let mut others = now(OLD);
        others[1].name = "c".into();
        let failures = baseline().judge(COMPILER, &others).failures;
        assert_eq!(
            failures,
            ["c: not in the baseline", "b: in the baseline, and no longer counted"]
        );
    }

    #[test]
    fn what_is_not_gated_or_skipped_never_fails() {
        let mut entries = now(Counts { instructions: 2000.0, system_calls: 9.0, allocations: 9.0 });
        entries[1].gated = false;
        assert_eq!(baseline().judge(COMPILER, &entries), Verdict::default());
        entries[0].counts = None;
        assert_eq!(baseline().judge(COMPILER, &entries).notes, ["a: skipped"]);
    }

    #[test]
    fn an_update_keeps_what_was_skipped() {
        let mut entries = now(Counts { instructions: 900.0, ..OLD });
        entries[0].counts = None;
        let next = Baseline::of("new".into(), &entries, Some(&baseline()));
        assert_eq!(next.entries["a"], OLD);
        assert_eq!(next.entries["b"].instructions, 900.0);
        assert_eq!(next.compiler, "new");
    }

    #[test]
    fn the_table_shows_what_changed() {
        let mut entries = now(Counts { instructions: 1100.0, system_calls: 2.0, ..OLD });
        entries.push(Now { name: "c".into(), gated: false, counts: Some(OLD) });
        let table = baseline().table(&entries);
        let lines: Vec<Vec<&str>> =
            table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["a", "1000.0", "1000.0", "+0.0", "%", "1.000", "0.000"]);
        assert_eq!(lines[1][..5], ["b", "1000.0", "1100.0", "+10.0", "%"]);
        assert_eq!(lines[1][5..], ["1.000", "→", "2.000", "0.000"]);
        assert_eq!(lines[2][..4], ["c", "-", "1000.0", "new"]);
    }
}
