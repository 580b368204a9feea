//! The results for people: Markdown.

use std::fmt::Write as _;

use crate::quartiles::Quartiles;
use crate::results::Row;
use crate::targets::{Reached, Verdict};

/// All that a report says.
pub(crate) struct Report<'a> {
    /// Machine, date, versions, method: a line each.
    pub(crate) facts: &'a [String],
    pub(crate) rows: &'a [Row],
    pub(crate) verdicts: &'a [Verdict],
    /// What went wrong or is missing.
    pub(crate) notes: &'a [String],
}

impl Report<'_> {
    pub(crate) fn markdown(&self) -> String {
        let mut text = "# Comparison of block devices\n\n".to_owned();
        self.facts.iter().for_each(|fact| push_line(&mut text, &format!("* {fact}")));
        text += "\n## Results\n\nMedians; in brackets the quartiles.\n\n";
        text += &self.table();
        text += "\n## Targets\n\nMedians of n ratios, each of two windows of one repetition.\n\n";
        text += &self.targets();
        if !self.notes.is_empty() {
            text += "\n## Notes\n\n";
            self.notes.iter().for_each(|note| push_line(&mut text, &format!("* {note}")));
        }
        text
    }

    fn table(&self) -> String {
        let head = [
            "device",
            "polls/client",
            "op",
            "KiB",
            "QD",
            "queues",
            "n",
            "rejected",
            "IOPS",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU µs/request",
            "MB/s",
        ];
        let rows = self.rows.iter().map(|row| {
            let cell = &row.cell;
            vec![
                row.device.clone(),
                row.regime.to_owned(),
                cell.op.to_string(),
                (cell.bytes >> 10).to_string(),
                cell.depth.to_string(),
                cell.queues.to_string(),
                row.n.to_string(),
                row.rejected.to_string(),
                quartiles(&row.iops),
                quartiles(&row.p50_us),
                quartiles(&row.p99_us),
                quartiles(&row.p999_us),
                quartiles(&row.cpu_us_per_request),
                quartiles(&row.mb_per_s),
            ]
        });
        table(&head, rows)
    }

    fn targets(&self) -> String {
        let head = ["target", "device", "of", "bound", "n", "reached", "quartiles", ""];
        let rows = self.verdicts.iter().map(|verdict| {
            let (n, ratio, range, met) = match &verdict.reached {
                Some(Reached { n, ratio, met }) => (
                    *n,
                    format!("{:.2}", ratio.median),
                    format!("{:.2} – {:.2}", ratio.q1, ratio.q3),
                    if *met { "met" } else { "**missed**" },
                ),
                None => (0, "–".to_owned(), "–".to_owned(), "not measured"),
            };
            vec![
                verdict.name.to_owned(),
                verdict.device.to_owned(),
                verdict.peer.to_owned(),
                verdict.bound.clone(),
                n.to_string(),
                ratio,
                range,
                met.to_owned(),
            ]
        });
        table(&head, rows)
    }
}

/// A table that reads well unrendered, too.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.insert(1, rule);
    let mut text = String::new();
    for line in lines {
        for (field, width) in line.iter().zip(&widths) {
            // Writing to a string doesn't fail.
            let _ = write!(text, "| {field:width$} ");
        }
        text += "|\n";
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn quartiles(Quartiles { q1, median, q3 }: &Quartiles) -> String {
    format!("{} ({} – {})", number(*median), number(*q1), number(*q3))
}

/// Three digits that matter, and no fewer than the integer has.
fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([1.234, 12.34, 123.4, 123_456.7].map(number), ["1.23", "12.3", "123", "123457"]);
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(&["a", "µs"], [vec!["long".to_owned(), "1".to_owned()]].into_iter());
        assert_eq!(text, "| a    | µs |\n| ---- | -- |\n| long | 1  |\n");
    }
}
