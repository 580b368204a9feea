use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{Layer, SandboxError, State};

/// Enters a new namespace.
pub(crate) fn enter(layer: Layer) -> Result<State, SandboxError> {
    let (flags, missing) = match layer {
        Layer::Network => (UnshareFlags::NEWNET, "the kernel has no CONFIG_NET_NS"),
        Layer::Ipc => (UnshareFlags::NEWIPC, "the kernel has no CONFIG_IPC_NS"),
        _ => (UnshareFlags::NEWUTS, "the kernel has no CONFIG_UTS_NS"),
    };
    State::unless_unknown(layer, "unshare", missing, unshare(flags))
}

/// unshare(2), except for `CLONE_FILES`.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    let flags = flags.difference(UnshareFlags::FILES);
    // SAFETY: the descriptor table isn't unshared.
    unsafe { unshare_unsafe(flags) }
}
