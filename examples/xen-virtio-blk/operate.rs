//! What operators ask of the daemon that runs: `status`, `resize`, `limit`, `log-level`.

mod json;
mod orders;
mod report;
mod row;
mod select;
mod status;
mod table;

pub use json::Json;
pub use orders::{limit, log_level, resize};
pub use row::{Row, Snapshot, rows};
pub use select::{SelectError, Selection};
pub use status::status;
pub use table::table;
