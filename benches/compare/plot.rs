//! Latency against IOPS, as SVG: one panel for each regime, one line for each device, one point
//! for each depth.

use crate::cell::Op;
use crate::results::Row;
use crate::svg::{COLOURS, Svg, short};

/// A panel, with its scales beside and below it.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 420.0;
const MARGIN: Margin = Margin { left: 64.0, right: 16.0, top: 36.0, bottom: 48.0 };
const LEGEND: f64 = 24.0;

struct Margin {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// A logarithmic scale from one power of ten to another.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// Over all of `values`, drawn from `start` to `end`.
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (low, high) = values
            .map(f64::log10)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (from, to) = (low.floor(), high.ceil());
        Self { from, to: if to > from { to } else { from + 1.0 }, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.from) / (self.to - self.from);
        self.start + share * (self.end - self.start)
    }

    /// The powers of ten, and whether twice and five times each.
    fn marks(&self) -> Vec<(f64, bool)> {
        (self.from as i32..=self.to as i32)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|n| (n * 10_f64.powi(power), n == 1.0)))
            .filter(|(value, _)| value.log10() <= self.to + 1e-9)
            .collect()
    }
}

/// 4 KiB reads over one queue, as those are there for several depths.
pub(crate) fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.cell.op == Op::Read && row.cell.bytes == 4096 && row.cell.queues == 1)
        .collect();
    let (mut regimes, mut devices) = (Vec::new(), Vec::new());
    for row in &rows {
        if !regimes.contains(&row.regime) {
            regimes.push(row.regime);
        }
        if !devices.contains(&row.device.as_str()) {
            devices.push(row.device.as_str());
        }
    }
    let columns = 2;
    let lines = regimes.len().div_ceil(columns);
    let width = WIDTH * columns as f64;
    let legend = LEGEND * devices.len().div_ceil(4) as f64 + 16.0;
    let height = HEIGHT * lines as f64 + legend;
    let mut svg = Svg::new(width, height);
    let iops = rows.iter().map(|row| row.iops.median);
    let x_scale = Scale::over(iops, MARGIN.left, WIDTH - MARGIN.right);
    let p50 = rows.iter().map(|row| row.p50_us.median);
    let y_scale = Scale::over(p50, HEIGHT - MARGIN.bottom, MARGIN.top);
    for (index, regime) in regimes.iter().enumerate() {
        let (x, y) = ((index % columns) as f64 * WIDTH, (index / columns) as f64 * HEIGHT);
        let shown: Vec<&Row> = rows.iter().filter(|row| row.regime == *regime).copied().collect();
        svg.add(format_args!("<g transform=\"translate({x} {y})\">"));
        panel(&mut svg, regime, &shown, &devices, &x_scale, &y_scale);
        svg.add(format_args!("</g>"));
    }
    for (index, device) in devices.iter().enumerate() {
        let x = MARGIN.left + (index % 4) as f64 * (width - MARGIN.left) / 4.0;
        let y = height - legend + LEGEND * (index / 4 + 1) as f64 - 8.0;
        let colour = COLOURS[index % COLOURS.len()];
        svg.add(format_args!("<circle cx=\"{x}\" cy=\"{}\" r=\"5\" fill=\"{colour}\"/>", y - 4.0));
        svg.add(format_args!("<text x=\"{}\" y=\"{y}\">{device}</text>", x + 10.0));
    }
    svg.finish()
}

/// One regime: scales, the same in every panel, then a line for each device.
fn panel(svg: &mut Svg, regime: &str, rows: &[&Row], devices: &[&str], x: &Scale, y: &Scale) {
    let (left, right) = (MARGIN.left, WIDTH - MARGIN.right);
    let (top, bottom) = (MARGIN.top, HEIGHT - MARGIN.bottom);
    let title = match regime.split_once('/') {
        Some((device, client)) => format!("device {device}, client {client}"),
        None => format!("no second process ({regime})"),
    };
    let middle = (left + right) / 2.0;
    svg.add(format_args!(
        "<text x=\"{middle}\" y=\"20\" text-anchor=\"middle\" font-weight=\"bold\">{title}</text>"
    ));
    for (value, whole) in x.marks() {
        let at = x.at(value);
        svg.scale_line((at, top), (at, bottom), whole);
        svg.add(format_args!(
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(value)
        ));
    }
    for (value, whole) in y.marks() {
        let at = y.at(value);
        svg.scale_line((left, at), (right, at), whole);
        svg.add(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            short(value)
        ));
    }
    svg.add(format_args!(
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">IOPS (4 KiB reads)</text>",
        bottom + 36.0
    ));
    let centre = (top + bottom) / 2.0;
    svg.add(format_args!(
            "<text x=\"16\" y=\"{centre}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {centre})\">\
         p50 latency, µs</text>"
        )
    );
    for (index, device) in devices.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let mut points: Vec<&&Row> = rows.iter().filter(|row| row.device == *device).collect();
        points.sort_by_key(|row| row.cell.depth);
        let place = |row: &Row| (x.at(row.iops.median), y.at(row.p50_us.median));
        let path: Vec<String> = points
            .iter()
            .map(|row| {
                let (x, y) = place(row);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        svg.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        ));
        for row in points {
            let (at_x, at_y) = place(row);
            svg.add(format_args!(
                "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\" fill=\"{colour}\">\
                 <title>{device} QD{}</title></circle>",
                row.cell.depth
            ));
            svg.add(format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" fill=\"{colour}\">{}</text>",
                at_x + 6.0,
                at_y - 5.0,
                row.cell.depth
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Cell, Client};
    use crate::quartiles::Quartiles;

    fn row(device: &str, op: Op, depth: u16, iops: f64) -> Row {
        let all = |median| Quartiles { q1: median, median, q3: median };
        Row {
            device: device.to_owned(),
            regime: "polls/spins",
            cell: Cell { op, bytes: 4096, depth, queues: 1, client: Client::Spins },
            n: 5,
            rejected: 0,
            iops: all(iops),
            p50_us: all(1e6 * f64::from(depth) / iops),
            p99_us: all(1.0),
            p999_us: all(1.0),
            cpu_us_per_request: all(1.0),
            mb_per_s: all(1.0),
        }
    }

    #[test]
    fn a_scale_is_logarithmic_between_powers_of_ten() {
        let scale = Scale::over([20.0, 500.0].into_iter(), 100.0, 300.0);
        assert_eq!([10.0, 100.0, 1000.0].map(|value| scale.at(value)), [100.0, 200.0, 300.0]);
        let marks: Vec<f64> = scale.marks().iter().map(|(value, _)| *value).collect();
        assert_eq!(marks, [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
    }

    #[test]
    fn each_read_is_a_point_and_nothing_else_is() {
        let rows = [
            row("a", Op::Read, 1, 1e5),
            row("a", Op::Read, 32, 5e5),
            row("b", Op::Read, 1, 1e4),
            row("b", Op::Write, 32, 2e4),
        ];
        let svg = svg(&rows);
        assert_eq!(svg.matches("<title>").count(), 3, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(super::svg(&[]).ends_with("</svg>\n"), "nothing to show is no error");
    }
}
