use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use crate::{Layer, SandboxError, State};

const LAYER: Layer = Layer::Capabilities;

/// The kernel's sets have 64 bits.
const CAPABILITIES: u32 = 64;

/// Empties the bounding set and locks `securebits`. This requires capabilities, so it is done before
/// the user ID changes. Afterwards execve(2) grants no capabilities, neither by file capabilities nor
/// to user ID 0.
pub(crate) fn bound() -> Result<(), SandboxError> {
    let failed = |what| SandboxError::layer::<Errno>(LAYER, what);
    for capability in 0..CAPABILITIES {
        let set = CapabilitySet::from_bits_retain(1 << capability);
        match remove_capability_from_bounding_set(set) {
            // Beyond the kernel's last capability.
            Err(Errno::INVAL) => break,
            result => result.map_err(failed("PR_CAPBSET_DROP"))?,
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).map_err(failed("PR_SET_SECUREBITS"))
}

/// Empties the remaining sets, those of the process itself, and checks all of them.
pub(crate) fn clear() -> Result<State, SandboxError> {
    let failed = |what| SandboxError::layer::<Errno>(LAYER, what);
    clear_ambient_capability_set().map_err(failed("PR_CAP_AMBIENT_CLEAR_ALL"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(failed("capset"))?;

    if capabilities(None).map_err(failed("capget"))? != sets {
        return Err(SandboxError::Left { layer: LAYER, what: "capabilities remain" });
    }
    for capability in 0..CAPABILITIES {
        match capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << capability)) {
            Ok(false) => {}
            Err(Errno::INVAL) => break,
            _ => {
                let what = "capabilities remain in the bounding set";
                return Err(SandboxError::Left { layer: LAYER, what });
            }
        }
    }
    Ok(State::On)
}
