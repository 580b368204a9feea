//! What a request costs, as SVG: a panel for each depth, and in it a bar for each way to the disk, of reads and of
//! writes.

use super::Figure;
use crate::svg::{COLOURS, Svg, short};

/// A panel, with its scale below it and the names beside it.
const WIDTH: f64 = 560.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 64.0;
const TOP: f64 = 40.0;
/// Of a bar, of the two bars of one name with the room below them, and below all of them.
const BAR: f64 = 16.0;
const PAIR: f64 = 44.0;
const BOTTOM: f64 = 52.0;
const LEGEND: f64 = 28.0;

/// What is shown.
const BYTES: u64 = 4096;
const DEPTHS: [u64; 2] = [1, 32];
const OPS: [(&str, &str); 2] = [("read", COLOURS[0]), ("write", COLOURS[2])];

/// A linear scale from nothing to a round number, which holds its largest value.
struct Scale {
    step: f64,
    end: f64,
}

impl Scale {
    /// With five to ten steps of 1, 2 or 5 times a power of ten.
    fn to(largest: f64) -> Self {
        let rough = largest.max(1.0) / 10.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        Self { step, end: (largest.max(1.0) / step).ceil() * step }
    }

    fn at(&self, value: f64) -> f64 {
        LEFT + value / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (step, count) = (self.step, (self.end / self.step).round() as u32);
        (0..=count).map(move |mark| f64::from(mark) * step)
    }
}

/// The figures of 4 KiB, as far as they were taken.
pub(super) fn svg(figures: &[Figure]) -> String {
    let shown: Vec<&Figure> = figures.iter().filter(|figure| figure.bytes == BYTES).collect();
    let mut names = Vec::new();
    for name in shown.iter().map(|figure| name(figure)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let height = TOP + PAIR * names.len() as f64 + BOTTOM;
    let mut svg = Svg::new(WIDTH * DEPTHS.len() as f64, height + LEGEND);
    for (index, depth) in DEPTHS.into_iter().enumerate() {
        svg.add(format_args!("<g transform=\"translate({} 0)\">", WIDTH * index as f64));
        let figures: Vec<&Figure> =
            shown.iter().filter(|figure| figure.depth == depth).copied().collect();
        panel(&mut svg, depth, &figures, &names, height);
        svg.add(format_args!("</g>"));
    }
    for (index, (op, colour)) in OPS.into_iter().enumerate() {
        let (x, y) = (LEFT + 100.0 * index as f64, height + 4.0);
        svg.add(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        ));
        svg.add(format_args!("<text x=\"{}\" y=\"{}\">{op}</text>", x + 18.0, y + 11.0));
    }
    svg.finish()
}

/// How the disk is reached, in words.
fn name(figure: &Figure) -> String {
    match figure.transport {
        None => "Xen's PV block".to_owned(),
        Some(transport) => format!("virtio-{transport}, {}", figure.mapping),
    }
}

fn panel(svg: &mut Svg, depth: u64, figures: &[&Figure], names: &[String], height: f64) {
    let scale = Scale::to(figures.iter().map(|figure| figure.virtual_ns).fold(0.0, f64::max));
    let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, height - BOTTOM);
    svg.add(format_args!(
        "<text x=\"{middle}\" y=\"20\" text-anchor=\"middle\" font-weight=\"bold\">{} KiB, depth {depth}</text>",
        BYTES >> 10
    ));
    for mark in scale.marks() {
        let x = scale.at(mark);
        svg.scale_line((x, TOP - 8.0), (x, bottom), mark == 0.0);
        svg.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(mark)
        ));
    }
    svg.add(format_args!(
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">instructions a request, of guest, Xen and dom0</text>",
        bottom + 36.0
    ));
    for (row, name) in names.iter().enumerate() {
        let top = TOP + PAIR * row as f64;
        svg.add(format_args!(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            top + BAR + 4.0
        ));
        for (place, (op, colour)) in OPS.into_iter().enumerate() {
            let mut its = figures.iter().filter(|figure| self::name(figure) == *name);
            let Some(figure) = its.find(|figure| figure.op == op) else { continue };
            let (y, end) = (top + BAR * place as f64, scale.at(figure.virtual_ns));
            svg.add(format_args!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\">\
                 <title>{name}, {op}, depth {depth}: {:.0}</title></rect>",
                end - LEFT,
                BAR - 2.0,
                figure.virtual_ns
            ));
            svg.add(format_args!(
                "<text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{:.1}k</text>",
                end + 4.0,
                y + BAR - 5.0,
                figure.virtual_ns / 1000.0
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(transport: Option<&'static str>, op: &'static str, bytes: u64, ns: f64) -> Figure {
        Figure {
            backend: "x",
            mapping: "foreign",
            transport,
            notify: None,
            op,
            bytes,
            depth: 1,
            vcpus: 1,
            virtual_ns: ns,
            ioreqs: None,
            interrupts: 1.0,
        }
    }

    #[test]
    fn a_scale_begins_at_nothing_and_ends_beyond_its_largest_value() {
        let scale = Scale::to(96_158.0);
        assert_eq!((scale.step, scale.end), (10_000.0, 100_000.0));
        assert_eq!((scale.at(0.0), scale.at(100_000.0)), (LEFT, WIDTH - RIGHT));
        assert_eq!(scale.marks().count(), 11);
        assert_eq!(Scale::to(16_629.0).end, 18_000.0);
    }

    #[test]
    fn each_figure_of_4_kib_is_a_bar_as_long_as_it_costs() {
        let figures = [
            figure(None, "read", 4096, 40_000.0),
            figure(Some("pci"), "read", 4096, 100_000.0),
            figure(Some("pci"), "write", 4096, 50_000.0),
            figure(Some("pci"), "write", 65536, 200_000.0),
        ];
        let svg = svg(&figures);
        assert_eq!(svg.matches("<title>").count(), 3, "{svg}");
        let whole = WIDTH - LEFT - RIGHT;
        for share in [0.4, 1.0, 0.5] {
            assert!(svg.contains(&format!("width=\"{:.1}\"", share * whole)), "{share}: {svg}");
        }
        assert!(svg.contains("Xen's PV block") && svg.contains("virtio-pci, foreign"));
    }

    #[test]
    fn nothing_to_show_is_no_error() {
        let svg = svg(&[]);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
