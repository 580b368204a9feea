//! What serves a guest: its traps, its memory and its devices. It runs in a [process](crate::process) of its own.

mod bus;
mod claim;
mod command;
mod error;
mod map_budget;
mod memory;
mod message;
mod options;
mod placed;
mod reports;
mod service;
mod sleep;
mod unmapper;
mod wake;

pub(crate) use command::{Command, CommandOf, Input, Loaded};
pub(crate) use error::GuestError;
pub use map_budget::MapBudget;
pub(crate) use message::{End, Hello, Message, MessageOf};
pub use options::GuestOptions;
pub(crate) use reports::{Report, Reports};
pub(crate) use service::Service;
pub(crate) use wake::{GuestWake, GuestWaker};
