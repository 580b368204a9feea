use std::fmt;

/// A part of the confinement, in the order in which they are entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// A mount namespace of its own, whose root is an empty directory that can't be written.
    EmptyRoot,
    /// A network namespace without interfaces.
    Network,
    /// An IPC namespace without System V objects and message queues.
    Ipc,
    /// A UTS namespace: the host's name can't be changed.
    Uts,
    /// See [`Limits`](crate::Limits).
    Limits,
    /// User and group of [`Ids`](crate::Ids), no supplementary groups.
    Identity,
    /// A session keyring of its own: the keys of who started the process aren't in it.
    Keyring,
    /// No capability in any set, and none to be had again (`securebits`).
    Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`: running a program adds no privilege. [`Seccomp`](Self::Seccomp)
    /// implies it.
    NoNewPrivs,
    /// `PR_SET_DUMPABLE` 0: no core dump, and no other process of the same user may trace this one.
    Undumpable,
    /// `PR_SET_MDWE`, Linux 6.3: memory that could be written doesn't become executable.
    WriteXorExecute,
    /// Landlock without rules: no file, TCP port, abstract socket or process outside.
    Landlock,
    /// The system calls that a thread of its kind needs, and no others; see
    /// [`ThreadKind`](crate::ThreadKind).
    Seccomp,
}

impl Layer {
    /// Every layer, in order.
    pub const ALL: [Self; 13] = [
        Self::EmptyRoot,
        Self::Network,
        Self::Ipc,
        Self::Uts,
        Self::Limits,
        Self::Identity,
        Self::Keyring,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Undumpable,
        Self::WriteXorExecute,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// A short name without blanks, as in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EmptyRoot => "empty-root",
            Self::Network => "network-namespace",
            Self::Ipc => "ipc-namespace",
            Self::Uts => "uts-namespace",
            Self::Limits => "limits",
            Self::Identity => "identity",
            Self::Keyring => "keyring",
            Self::Capabilities => "no-capabilities",
            Self::NoNewPrivs => "no-new-privs",
            Self::Undumpable => "undumpable",
            Self::WriteXorExecute => "write-xor-execute",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    /// Whether entering it takes root's privileges.
    pub(crate) fn takes_root(self) -> bool {
        use Layer::{Capabilities, EmptyRoot, Ipc, Network, Uts};
        matches!(self, EmptyRoot | Network | Ipc | Uts | Capabilities)
    }

    /// The layer with that [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_is_found_by_its_name() {
        for layer in Layer::ALL {
            assert_eq!(Layer::from_name(layer.name()), Some(layer));
        }
        assert_eq!(Layer::from_name("moat"), None);
    }
}
