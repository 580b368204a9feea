//! MSI-X (PCI Local Bus 3.0 §6.8.2): the table that the driver writes, and the vectors that it makes.

mod function;
mod lines;
mod state;
mod table;
mod vector;
mod vectors;

pub(crate) use function::Function;
pub use lines::MsiLines;
pub use state::VectorState;
pub(crate) use table::Table;
pub(crate) use vectors::{NO_VECTOR, Vectors};
