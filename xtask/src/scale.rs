//! `cargo xtask testbed scale`: what a request costs when several guests, each with several disks, are busy at once.
//!
//! One deterministic boot, as of the [figures](crate::figures): a virtual nanosecond is an executed instruction.

use crate::case::Case;
use crate::paths;
use crate::run;
use crate::testbed::Testbed;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;

/// How much more a request may cost than one of a single guest with a single disk.
const FLAT: f64 = 1.10;

/// Guests that are busy at once; the numbers behind `depth` are per request.
#[derive(Debug, Serialize, PartialEq)]
struct Cell {
    transport: String,
    /// How the backend reaches the guests' memory.
    mapping: String,
    guests: u64,
    /// Of each guest.
    disks: u64,
    /// Of each disk.
    depth: u64,
    virtual_ns: f64,
    ioreqs: f64,
    interrupts: f64,
    /// Context switches of dom0.
    switches: f64,
}

/// True if all cells were taken and each costs what a single guest's does.
pub(crate) fn run() -> Result<bool> {
    let testbed = Testbed::build(false)?;
    let binaries = testbed.daemon()?;
    let case = Case::at("scale", paths::testbed("scale.sh"))?;
    println!("\nmeasuring, in one deterministic boot …");
    let outcome = run::run(&testbed, &binaries, &case, &|_| {})?;
    if let Some(fault) = &outcome.fault {
        println!("the whole console: {}\nscale: FAIL ({fault})", outcome.log.display());
        return Ok(false);
    }
    let cells = parse(&outcome.console.lines)?;
    let verdicts = verdicts(&cells);
    print_table(&cells, &verdicts);
    for left_out in outcome.console.left_out() {
        println!("left out: {left_out}");
    }
    let path = paths::target().join("scale.json");
    fs::write(&path, serde_json::to_vec_pretty(&cells)?)
        .with_context(|| format!("writing {}", path.display()))?;
    let flat = verdicts.iter().filter(|verdict| verdict.is_flat()).count();
    println!("\n{} cells written to {}", cells.len(), path.display());
    println!("scale: {flat} of {} within {FLAT} x one guest with one disk", cells.len());
    Ok(!cells.is_empty() && flat == cells.len())
}

/// The lines `note scale KEY=VALUE…`.
fn parse(lines: &[String]) -> Result<Vec<Cell>> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("@@ note scale "))
        .map(|line| cell(line).with_context(|| format!("{line:?}")))
        .collect()
}

fn cell(line: &str) -> Result<Cell> {
    let word = |key: &str| {
        let mut words = line.split(' ').filter_map(|word| word.split_once('='));
        let (_, value) =
            words.find(|(name, _)| *name == key).with_context(|| format!("no {key}"))?;
        anyhow::Ok(value)
    };
    let number = |key: &str| word(key)?.parse::<u64>().with_context(|| key.to_owned());
    let requests = number("count")?;
    anyhow::ensure!(requests > 0, "no requests");
    let per_request = |key: &str| anyhow::Ok(number(key)? as f64 / requests as f64);
    Ok(Cell {
        transport: word("transport")?.to_owned(),
        mapping: word("mapping")?.to_owned(),
        guests: number("guests")?,
        disks: number("disks")?,
        depth: number("depth")?,
        virtual_ns: per_request("ns")?,
        ioreqs: per_request("ioreqs")?,
        interrupts: per_request("interrupts")?,
        switches: per_request("switches")?,
    })
}

/// A cell beside that of one guest with one disk, of the same kind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Verdict {
    /// `None` without the other.
    ratio: Option<f64>,
}

impl Verdict {
    /// Costing less is no fault.
    fn is_flat(self) -> bool {
        self.ratio.is_some_and(|ratio| ratio <= FLAT)
    }
}

fn verdicts(cells: &[Cell]) -> Vec<Verdict> {
    let kind = |cell: &Cell| (cell.transport.clone(), cell.mapping.clone(), cell.depth);
    let single = |of: &Cell| {
        let mut singles = cells.iter().filter(|cell| (cell.guests, cell.disks) == (1, 1));
        singles.find(|cell| kind(cell) == kind(of))
    };
    let verdict =
        |cell| Verdict { ratio: single(cell).map(|single| cell.virtual_ns / single.virtual_ns) };
    cells.iter().map(verdict).collect()
}

fn print_table(cells: &[Cell], verdicts: &[Verdict]) {
    println!(
        "\n4 KiB reads; virtual ns (= instructions of the whole system), ioreqs, interrupts and context switches \
         of dom0 a request; beside one guest with one disk\n"
    );
    println!(
        "{:<9} {:<8} {:>5} {:>6} {:>5} {:>12} {:>7} {:>10} {:>8} {:>7}",
        "transport",
        "mapping",
        "depth",
        "guests",
        "disks",
        "virtual ns",
        "ioreqs",
        "interrupts",
        "switches",
        "ratio"
    );
    for (cell, verdict) in cells.iter().zip(verdicts) {
        println!(
            "{:<9} {:<8} {:>5} {:>6} {:>5} {:>12.0} {:>7.3} {:>10.3} {:>8.3} {:>7} {}",
            cell.transport,
            cell.mapping,
            cell.depth,
            cell.guests,
            cell.disks,
            cell.virtual_ns,
            cell.ioreqs,
            cell.interrupts,
            cell.switches,
            verdict.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
            if verdict.is_flat() { "flat" } else { "not flat" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{cell, parse, verdicts};

    const SINGLE: &str = "transport=mmio mapping=foreign guests=1 disks=1 depth=1 count=100 ns=9000000 \
                          interrupts=100 ioreqs=300 switches=400";

    #[test]
    fn a_cell_is_what_all_its_guests_made_together() {
        let cell = cell(SINGLE).unwrap();
        assert_eq!((cell.guests, cell.disks, cell.depth), (1, 1, 1));
        assert_eq!((cell.virtual_ns, cell.ioreqs), (90_000.0, 3.0));
        assert_eq!((cell.interrupts, cell.switches), (1.0, 4.0));
    }

    #[test]
    fn a_line_that_lacks_something_is_an_error() {
        for text in [
            "",
            "scale",
            &SINGLE.replace("ns=9000000", ""),
            &SINGLE.replace("count=100", "count=0"),
        ] {
            assert!(cell(text).is_err(), "{text}");
        }
        let lines = ["@@ note scale x".to_owned()];
        assert!(parse(&lines).is_err());
        assert_eq!(parse(&["@@ note other".to_owned()]).unwrap(), []);
    }

    #[test]
    fn a_cell_is_flat_that_costs_a_tenth_more_at_most() {
        let line = |guests: &str, ns: &str| {
            cell(&SINGLE.replace("guests=1", guests).replace("ns=9000000", ns)).unwrap()
        };
        let cells = [
            cell(SINGLE).unwrap(),
            line("guests=4", "ns=9800000"),
            line("guests=10", "ns=10000000"),
            line("guests=10", "ns=5000000"),
        ];
        let flat: Vec<bool> = verdicts(&cells).iter().map(|verdict| verdict.is_flat()).collect();
        assert_eq!(flat, [true, true, false, true]);
    }

    #[test]
    fn a_cell_is_compared_with_its_own_kind() {
        let line = |from: &str, to: &str| cell(&SINGLE.replace(from, to)).unwrap();
        let cells = [
            line("guests=1", "guests=4"),
            line("mapping=foreign", "mapping=grant"),
            line("depth=1", "depth=32"),
            line("transport=mmio", "transport=pci"),
        ];
        assert_eq!(verdicts(&cells)[0].ratio, None);
        assert!(!verdicts(&cells)[0].is_flat(), "nothing to compare it with");
    }
}
