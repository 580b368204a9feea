//! What is compared.

use std::fmt;

use crate::cell::{Cell, Client};
use crate::program::Program;

/// One of the devices compared, in one way of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// Another process, over vhost-user.
    Served {
        program: Program,
        polls: bool,
        queues: u16,
    },
    /// Our device in the client's thread.
    InProcess,
    /// No device: the calls of the kernel.
    RawPread,
    RawUring,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served { program, .. } => write!(f, "{program}"),
            Self::InProcess => f.write_str("in-process/sync"),
            Self::RawPread => f.write_str("raw/pread"),
            Self::RawUring => f.write_str("raw/io_uring"),
        }
    }
}

impl Subject {
    /// How it runs, where there is more than one way.
    pub(crate) fn way(&self) -> String {
        match self {
            Self::Served { polls, queues, .. } => {
                format!("{}, queues: {queues}", if *polls { "polls" } else { "quiet" })
            }
            Self::InProcess | Self::RawPread | Self::RawUring => "one thread".to_owned(),
        }
    }

    /// Who polls: the device, the client.
    pub(crate) fn regime(&self, cell: &Cell) -> &'static str {
        match (self, cell.client) {
            (Self::Served { polls: true, .. }, Client::Spins) => "polls/spins",
            (Self::Served { polls: true, .. }, Client::Sleeps) => "polls/sleeps",
            (Self::Served { polls: false, .. }, Client::Spins) => "quiet/spins",
            (Self::Served { polls: false, .. }, Client::Sleeps) => "quiet/sleeps",
            (Self::InProcess | Self::RawPread | Self::RawUring, _) => "one thread",
        }
    }
}
