//! The guests: what serves one of them, and all of them as the handshake sees them.

mod command;
mod error;
mod handle;
mod map_budget;
mod memory;
mod notices;
mod service;
mod table;
mod unmapper;

pub use command::Attachment;
pub use error::GuestError;
pub use handle::{Detaching, Guest};
pub use map_budget::MapBudget;
pub use notices::{NoticeBox, Notices};
pub(crate) use table::Guests;
