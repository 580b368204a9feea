//! The states of the xenbus handshake (xen/include/public/io/xenbus.h).

use std::fmt;

/// `XenbusState` of xen/include/public/io/xenbus.h: how far one end of a split device is, as its `state` node
/// says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XenbusState {
    /// The toolstack wrote the device; the backend has not taken it yet.
    Initialising,
    /// The backend stands ready: the guest may run.
    InitWait,
    /// The frontend has written its details.
    Initialised,
    /// Both ends run.
    Connected,
    /// The toolstack wants the device gone.
    Closing,
    /// The backend has let go of everything.
    Closed,
    /// Anything else.
    Unknown,
}

impl XenbusState {
    /// The state that a `state` node's text means.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "1" => Self::Initialising,
            "2" => Self::InitWait,
            "3" => Self::Initialised,
            "4" => Self::Connected,
            "5" => Self::Closing,
            "6" => Self::Closed,
            _ => Self::Unknown,
        }
    }

    /// The text to write to a `state` node.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
        }
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reads_back_as_written() {
        for text in ["0", "1", "2", "3", "4", "5", "6"] {
            assert_eq!(XenbusState::parse(text).as_str(), text);
        }
        assert_eq!(XenbusState::parse("absurd"), XenbusState::Unknown);
    }
}
