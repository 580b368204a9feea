//! What the figures are to be.

use super::Figure;

/// What a figure is measured against.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// Virtual nanoseconds a request.
    Ns(f64),
    /// So many times what Xen's PV block takes for the same requests.
    OfPv(f64),
    /// So many times what the same transport takes by foreign mapping.
    OfForeign(f64),
    /// Accesses that Xen forwards, a request.
    Ioreqs(f64),
}

/// What the figures of some requests are to be, at most.
#[derive(Clone, Copy, Debug)]
struct Target {
    transport: &'static str,
    mapping: &'static str,
    /// `None`: reads and writes.
    op: Option<&'static str>,
    sizes: &'static [u64],
    depth: u64,
    limit: Limit,
}

const K4: &[u64] = &[4096];
const K64: &[u64] = &[65536];
const M1: &[u64] = &[1_048_576];
const LARGE: &[u64] = &[65536, 1_048_576];
const ALL: &[u64] = &[4096, 65536, 1_048_576];

const TARGETS: &[Target] = &[
    mmio(Some("read"), 1, Limit::Ns(86_000.0)),
    mmio(Some("write"), 1, Limit::Ns(88_000.0)),
    mmio(None, 32, Limit::Ns(8_100.0)),
    pci("foreign", ALL, 1, Limit::OfPv(1.0)),
    pci("foreign", K4, 32, Limit::OfPv(1.0)),
    pci("foreign", LARGE, 32, Limit::OfPv(0.9)),
    pci("foreign", ALL, 1, Limit::Ioreqs(1.0)),
    pci("foreign", ALL, 32, Limit::Ioreqs(0.04)),
    pci("grant", K4, 1, Limit::OfForeign(1.35)),
    pci("grant", K4, 32, Limit::OfForeign(1.5)),
    pci("grant", K64, 1, Limit::OfPv(1.3)),
    pci("grant", K64, 32, Limit::OfPv(1.3)),
    pci("grant", M1, 1, Limit::OfPv(1.25)),
    pci("grant", M1, 32, Limit::OfPv(1.25)),
];

const fn mmio(op: Option<&'static str>, depth: u64, limit: Limit) -> Target {
    Target { transport: "mmio", mapping: "foreign", op, sizes: K4, depth, limit }
}

const fn pci(mapping: &'static str, sizes: &'static [u64], depth: u64, limit: Limit) -> Target {
    Target { transport: "pci", mapping, op: None, sizes, depth, limit }
}

/// A figure beside its target.
#[derive(Debug, PartialEq)]
struct Verdict {
    text: String,
    met: bool,
}

/// A line for each figure that has a target, and how many meet theirs.
pub(super) fn print_verdicts(figures: &[Figure]) {
    let verdicts = verdicts(figures);
    for Verdict { text, met } in &verdicts {
        println!("{} {text}", if *met { "met   " } else { "missed" });
    }
    let met = verdicts.iter().filter(|verdict| verdict.met).count();
    println!("\ntargets: {met} of {} met", verdicts.len());
}

fn verdicts(figures: &[Figure]) -> Vec<Verdict> {
    let of = |target: &'static Target| {
        figures.iter().filter_map(|figure| target.verdict(figure, figures))
    };
    TARGETS.iter().flat_map(of).collect()
}

impl Target {
    /// `None` if the figure is none of the target's, or what it is measured against was left out.
    fn verdict(&self, figure: &Figure, all: &[Figure]) -> Option<Verdict> {
        let is_its = figure.transport == Some(self.transport)
            && figure.mapping == self.mapping
            && self.op.is_none_or(|op| op == figure.op)
            && self.sizes.contains(&figure.bytes)
            && figure.depth == self.depth;
        if !is_its {
            return None;
        }
        let beside = |is_it: &dyn Fn(&Figure) -> bool| {
            let same = |other: &&Figure| {
                (other.op, other.bytes, other.depth, other.vcpus)
                    == (figure.op, figure.bytes, figure.depth, figure.vcpus)
            };
            Some(all.iter().filter(same).find(|other| is_it(other))?.virtual_ns)
        };
        let ns = figure.virtual_ns;
        let (value, limit, unit) = match self.limit {
            Limit::Ns(limit) => (ns, limit, "virtual ns"),
            Limit::OfPv(limit) => {
                (ns / beside(&|other| other.transport.is_none())?, limit, "x PV block")
            }
            Limit::OfForeign(limit) => {
                let is_it = |other: &Figure| {
                    other.transport == figure.transport && other.mapping == "foreign"
                };
                (ns / beside(&is_it)?, limit, "x foreign mapping")
            }
            Limit::Ioreqs(limit) => (figure.ioreqs?, limit, "ioreqs"),
        };
        let digits = if limit >= 100.0 { 0 } else { 3 };
        let Figure { mapping, op, bytes, depth, .. } = figure;
        let text = format!(
            "{} {mapping} {op} {bytes} bytes, depth {depth}: {value:.digits$} of {limit:.digits$} {unit}",
            self.transport
        );
        Some(Verdict { text, met: value <= limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(transport: Option<&'static str>, mapping: &'static str, ns: f64) -> Figure {
        Figure {
            backend: "x",
            mapping,
            transport,
            notify: None,
            op: "read",
            bytes: 4096,
            depth: 1,
            vcpus: 1,
            virtual_ns: ns,
            ioreqs: transport.map(|_| 1.0),
            interrupts: 1.0,
        }
    }

    #[test]
    fn a_figure_is_measured_against_the_pv_block_of_the_same_boot() {
        let all = [figure(None, "grant", 40_000.0), figure(Some("pci"), "foreign", 44_000.0)];
        let missed = verdicts(&all);
        assert_eq!(missed.len(), 2, "{missed:?}");
        assert_eq!(
            missed[0].text,
            "pci foreign read 4096 bytes, depth 1: 1.100 of 1.000 x PV block"
        );
        assert!(!missed[0].met && missed[1].met, "{missed:?}");
    }

    #[test]
    fn grants_are_measured_against_foreign_mapping_by_the_same_transport() {
        let all = [
            figure(Some("mmio"), "foreign", 10_000.0),
            figure(Some("pci"), "foreign", 40_000.0),
            figure(Some("pci"), "grant", 52_000.0),
        ];
        let verdicts = verdicts(&all);
        let grants = verdicts.iter().find(|verdict| verdict.text.starts_with("pci grant")).unwrap();
        assert_eq!(
            grants.text,
            "pci grant read 4096 bytes, depth 1: 1.300 of 1.350 x foreign mapping"
        );
        assert!(grants.met);
    }

    #[test]
    fn what_was_left_out_has_no_verdict() {
        assert_eq!(verdicts(&[figure(Some("pci"), "grant", 1.0)]), []);
    }
}
