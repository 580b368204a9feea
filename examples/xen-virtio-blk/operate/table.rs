//! The disks as a table.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::{report::printable, row::Row};

/// The table's columns, and whether they have numbers.
const COLUMNS: [(&str, bool); 12] = [
    ("GUEST", false),
    ("DISK", false),
    ("IMAGE", false),
    ("MODE", false),
    ("MAPPING", false),
    ("STATE", false),
    ("QD", true),
    ("IOPS", true),
    ("MB/S", true),
    ("P50", true),
    ("P99", true),
    ("ERRORS", true),
];

/// The disks, a line each, and below them what is wrong with some.
pub fn table(rows: &[Row], unknown: &[u16]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(COLUMNS.map(|(name, _)| name));
    for (index, (_, is_number)) in COLUMNS.into_iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for row in rows {
        table.add_row(cells(row));
    }
    let mut text: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    if rows.is_empty() {
        text.push_str("No guest has a virtio disk here.\n");
    }
    for row in rows {
        if let Some(reason) = &row.reason {
            let _ = writeln!(
                text,
                "{} {}: {}: {}",
                guest(row),
                row.disk,
                row.state.as_str(),
                printable(reason)
            );
        }
    }
    for domid in unknown {
        let _ = writeln!(
            text,
            "domain {domid}: its disks are served by a process of another version, and aren't known"
        );
    }
    text
}

fn cells(row: &Row) -> [String; COLUMNS.len()] {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    [
        guest(row),
        row.disk.clone(),
        row.image.as_deref().map_or_else(|| "-".to_owned(), printable),
        or_dash(row.mode),
        or_dash(row.mapping),
        row.state.as_str().to_owned(),
        row.in_flight.to_string(),
        format!("{:.0}", row.iops),
        format!("{:.1}", row.bytes_per_second / 1e6),
        row.p50_us.map_or_else(|| "-".to_owned(), duration),
        row.p99_us.map_or_else(|| "-".to_owned(), duration),
        row.errors.to_string(),
    ]
}

fn guest(row: &Row) -> String {
    row.guest.as_deref().map_or_else(|| row.domid.to_string(), printable)
}

/// Microseconds in a unit that takes few digits.
fn duration(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0}us"),
        us if us < 1_000_000.0 => format!("{:.1}ms", us / 1e3),
        us => format!("{:.1}s", us / 1e6),
    }
}
