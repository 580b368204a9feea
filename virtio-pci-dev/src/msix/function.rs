//! What concerns all vectors of a function.

/// What the configuration space says of a function's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Function {
    /// MSI-X Enable.
    pub(crate) enabled: bool,
    /// Function Mask.
    pub(crate) masked: bool,
    /// Bus Master Enable: a message is a write to memory, which a function may do only with this.
    pub(crate) bus_master: bool,
}

impl Function {
    /// Whether a vector that is not masked itself sends its message.
    pub(crate) fn sends(self) -> bool {
        self.enabled && !self.masked && self.bus_master
    }
}
