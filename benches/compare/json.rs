//! The results for other programs: a list of rows, medians with their quartiles beside them.

use serde_json::{Map, Value, json};

use crate::quartiles::Quartiles;
use crate::results::Row;

pub(crate) fn rows(rows: &[Row]) -> Value {
    rows.iter().map(row).collect()
}

fn row(row: &Row) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    set("device", json!(row.device));
    set("regime", json!(row.regime));
    set("op", json!(row.cell.op.to_string()));
    set("bytes", json!(row.cell.bytes));
    set("depth", json!(row.cell.depth));
    set("queues", json!(row.cell.queues));
    set("n", json!(row.n));
    set("rejected", json!(row.rejected));
    let metrics: [(&str, &Quartiles); 6] = [
        ("iops", &row.iops),
        ("p50_us", &row.p50_us),
        ("p99_us", &row.p99_us),
        ("p999_us", &row.p999_us),
        ("cpu_us_per_request", &row.cpu_us_per_request),
        ("mb_per_s", &row.mb_per_s),
    ];
    for (key, quartiles) in metrics {
        set(key, json!(quartiles.median));
        set(&format!("{key}_q1"), json!(quartiles.q1));
        set(&format!("{key}_q3"), json!(quartiles.q3));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::{Cell, Client, Op};

    #[test]
    fn a_row_has_the_promised_fields() {
        let quartiles = Quartiles { q1: 1.0, median: 2.0, q3: 3.0 };
        let list = rows(&[Row {
            device: "raw/pread".to_owned(),
            regime: "one thread",
            cell: Cell { op: Op::Mix, bytes: 4096, depth: 32, queues: 1, client: Client::Spins },
            n: 5,
            rejected: 1,
            iops: quartiles,
            p50_us: quartiles,
            p99_us: quartiles,
            p999_us: quartiles,
            cpu_us_per_request: quartiles,
            mb_per_s: quartiles,
        }]);
        let object = list[0].as_object().unwrap();
        for (key, value) in [
            ("device", json!("raw/pread")),
            ("regime", json!("one thread")),
            ("op", json!("mix70/30")),
            ("bytes", json!(4096)),
            ("depth", json!(32)),
            ("queues", json!(1)),
            ("n", json!(5)),
            ("iops", json!(2.0)),
            ("p50_us", json!(2.0)),
            ("p99_us", json!(2.0)),
            ("p999_us_q1", json!(1.0)),
            ("cpu_us_per_request_q3", json!(3.0)),
            ("mb_per_s", json!(2.0)),
        ] {
            assert_eq!(object.get(key), Some(&value), "{key}");
        }
        assert_eq!(object.len(), 8 + 6 * 3);
    }
}
