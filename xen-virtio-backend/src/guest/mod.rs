//! The guests: what serves one of them, and all of them as the handshake sees them.

mod command;
mod error;
mod event;
mod handle;
mod map_budget;
mod memory;
mod service;
mod sleep;
mod unmapper;

pub use command::{Attachment, Command};
pub use error::GuestError;
pub use event::{End, Event, EventBox, EventSender};
pub use handle::Guest;
pub use map_budget::MapBudget;
