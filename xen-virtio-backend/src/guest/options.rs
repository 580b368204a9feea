//! How a guest is served.

use serde::{Deserialize, Serialize};

use super::map_budget::MapBudget;
use crate::transport_kind::TransportKind;

/// How a guest is served.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuestOptions {
    /// How much of its memory may be mapped.
    pub map_budget: MapBudget,
    /// How its devices are reached.
    pub transport: TransportKind,
}
