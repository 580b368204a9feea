//! `cargo xtask testbed figures`: what a request costs a guest.
//!
//! One deterministic boot: a virtual nanosecond is an executed instruction, of the guest, Xen and dom0
//! together, whatever else this machine does.

mod bars;
mod targets;

use crate::case::Case;
use crate::paths;
use crate::run::{self, Outcome};
use crate::testbed::Testbed;
use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use std::fs;

/// One row; all numbers but the first ones are per request.
#[derive(Debug, Serialize, PartialEq)]
struct Figure {
    backend: &'static str,
    /// How the backend reaches the guest's memory.
    mapping: &'static str,
    /// By what the guest reaches the device: a virtio-mmio window, or a PCI bus; neither, for Xen's PV block.
    transport: Option<&'static str>,
    /// Who answers the guest's kicks; nobody, for Xen's PV block.
    notify: Option<&'static str>,
    op: &'static str,
    bytes: u64,
    depth: u64,
    vcpus: u64,
    virtual_ns: f64,
    ioreqs: Option<f64>,
    interrupts: f64,
}

/// True if all figures were taken.
pub(crate) fn run() -> Result<bool> {
    let testbed = Testbed::build(false)?;
    let binaries = testbed.daemon()?;
    let case = Case::at("figures", paths::testbed("figures.sh"))?;
    println!("\nmeasuring, in one deterministic boot …");
    let outcome = run::run(&testbed, &binaries, &case, &|_| {})?;
    if let Some(fault) = &outcome.fault {
        println!("the whole console: {}\nfigures: FAIL ({fault})", outcome.log.display());
        return Ok(false);
    }
    let figures = parse(&outcome)?;
    print_table(&figures);
    for left_out in outcome.console.left_out() {
        println!("left out: {left_out}");
    }
    let path = paths::target().join("figures.json");
    fs::write(&path, serde_json::to_vec_pretty(&figures)?)
        .with_context(|| format!("writing {}", path.display()))?;
    let drawn = path.with_extension("svg");
    fs::write(&drawn, bars::svg(&figures))
        .with_context(|| format!("writing {}", drawn.display()))?;
    println!(
        "\n{} figures written to {}, drawn in {}\n",
        figures.len(),
        path.display(),
        drawn.display()
    );
    targets::print_verdicts(&figures);
    Ok(!figures.is_empty())
}

/// `note figure GUEST VCPUS IOREQS INTERRUPTS begin`, then the same with the result of the series.
fn parse(outcome: &Outcome) -> Result<Vec<Figure>> {
    let marks: Vec<&str> = outcome
        .console
        .lines
        .iter()
        .filter_map(|line| line.strip_prefix("@@ note figure "))
        .collect();
    marks
        .chunks(2)
        .map(|pair| match pair {
            [begin, end] => figure(begin, end).with_context(|| format!("{begin:?}, {end:?}")),
            _ => bail!("a series without its end: {pair:?}"),
        })
        .collect()
}

fn figure(begin: &str, end: &str) -> Result<Figure> {
    let (begin, end): (Vec<_>, Vec<_>) = (begin.split(' ').collect(), end.split(' ').collect());
    if begin.first() != end.first() || begin.get(4) != Some(&"begin") {
        bail!("not the two marks of one series");
    }
    let number = |key: &str| -> Result<u64> {
        let word = end.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        word.with_context(|| format!("no {key}"))?.parse().with_context(|| key.to_owned())
    };
    let count = number("count")? as f64;
    let per_request = |field: usize| -> Result<f64> {
        let at = |mark: &[&str]| {
            mark.get(field).context("a counter")?.parse::<f64>().context("a counter")
        };
        Ok((at(&end)? - at(&begin)?) / count)
    };
    let ours = |mapping, transport| ("xen-virtio-blk", mapping, Some(transport), Some("userspace"));
    let (backend, mapping, transport, notify) = match begin.first().copied() {
        Some("pv") => ("xen-blkback", "grant", None, None),
        Some("foreign") => ours("foreign", "mmio"),
        Some("grant") => ours("grant", "mmio"),
        Some("foreign-pci") => ours("foreign", "pci"),
        Some("grant-pci") => ours("grant", "pci"),
        other => bail!("an unknown guest {other:?}"),
    };
    Ok(Figure {
        backend,
        mapping,
        transport,
        notify,
        op: if end.contains(&"op=r") { "read" } else { "write" },
        bytes: number("bytes")?,
        depth: number("depth")?,
        vcpus: begin.get(1).context("vcpus")?.parse()?,
        virtual_ns: number("ns")? as f64 / count,
        ioreqs: notify.map(|_| per_request(2)).transpose()?,
        interrupts: per_request(3)?,
    })
}

fn print_table(figures: &[Figure]) {
    println!(
        "\nvirtual ns (= instructions of the whole system), ioreqs and interrupts a request\n"
    );
    println!(
        "{:<15} {:<8} {:<5} {:<6} {:>8} {:>6} {:>12} {:>7} {:>10}",
        "backend", "mapping", "by", "op", "bytes", "depth", "virtual ns", "ioreqs", "interrupts"
    );
    for figure in figures {
        println!(
            "{:<15} {:<8} {:<5} {:<6} {:>8} {:>6} {:>12.0} {:>7} {:>10.2}",
            figure.backend,
            figure.mapping,
            figure.transport.unwrap_or("-"),
            figure.op,
            figure.bytes,
            figure.depth,
            figure.virtual_ns,
            figure.ioreqs.map_or("-".to_owned(), |ioreqs| format!("{ioreqs:.2}")),
            figure.interrupts
        );
    }
}

#[cfg(test)]
mod tests {
    use super::figure;

    const BEGIN: &str = "foreign 1 100 40 begin";
    const END: &str =
        "foreign 1 148 56 bio bench op=r bytes=4096 count=16 depth=1 ns=160 ns_per_request=10";

    #[test]
    fn a_series_is_what_happened_between_its_marks() {
        let figure = figure(BEGIN, END).unwrap();
        assert_eq!(
            (figure.backend, figure.mapping, figure.op),
            ("xen-virtio-blk", "foreign", "read")
        );
        assert_eq!(figure.transport, Some("mmio"));
        assert_eq!((figure.virtual_ns, figure.ioreqs, figure.interrupts), (10.0, Some(3.0), 1.0));
    }

    #[test]
    fn the_pv_block_has_no_ioreqs() {
        let pv =
            |mark: &str| mark.replace("foreign 1 148", "pv 1 -").replace("foreign 1 100", "pv 1 -");
        let figure = figure(&pv(BEGIN), &pv(END)).unwrap();
        assert_eq!((figure.ioreqs, figure.notify, figure.interrupts), (None, None, 1.0));
    }

    #[test]
    fn marks_of_different_series_make_no_figure() {
        assert!(figure(END, END).is_err());
        assert!(figure(BEGIN, &END.replace("foreign", "grant")).is_err());
        assert!(figure(BEGIN, BEGIN).is_err());
    }
}
