use std::fmt;

/// One mechanism of the sandbox, in the order in which they are entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// A new mount namespace whose root is an empty read-only tmpfs.
    EmptyRoot,
    /// A new network namespace: only a loopback interface that is down.
    Network,
    /// A new IPC namespace: no System V objects or message queues of the host.
    Ipc,
    /// A new UTS namespace: the host name of the host can't be changed.
    Uts,
    /// Resource limits, see [`Limits`](crate::Limits).
    Limits,
    /// The user and group ID of [`Ids`](crate::Ids), without supplementary groups.
    Identity,
    /// A new session keyring: keys of the parent's session aren't accessible.
    Keyring,
    /// All capability sets empty, the bounding set included, and `securebits` locked.
    Capabilities,
    /// `PR_SET_NO_NEW_PRIVS`: execve(2) grants no privileges. Implied by
    /// [`Seccomp`](Self::Seccomp).
    NoNewPrivs,
    /// `PR_SET_DUMPABLE` 0: no core dumps, and no ptrace by other processes of the same user.
    Undumpable,
    /// `PR_SET_MDWE` (Linux 6.3): writable memory can't become executable.
    WriteXorExecute,
    /// Landlock without rules: denies all paths, TCP ports, abstract Unix sockets, and signals to
    /// other processes.
    Landlock,
    /// An allow-list of system calls for each [`ThreadKind`](crate::ThreadKind).
    Seccomp,
}

impl Layer {
    /// All layers, in order.
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

    /// Short name, for configuration and reports.
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

    /// Whether entering it requires root privileges.
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
        assert_eq!(Layer::from_name("none"), None);
    }
}
